"""Teacher kind ``mlflow``: a model of an MLflow registry, of whatever flavour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.digests import digest
from distill_tasks.core.errors import (
    InputError,
    PotstillError,
    say_error,
    shortlist,
    stop_if_disk_full,
)
from distill_tasks.teachers.base import Teacher
from distill_tasks.teachers.model_version import ModelVersion, few_retries, find_version
from distill_tasks.teachers.replies import ReplyReader, ask_first_rows
from distill_tasks.teachers.values import Scale, refuse_other_classes

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

    from distill_tasks.core.notes import Note
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.problems.classification import Problem
    from distill_tasks.teachers.base import Batches, LabellingContext

BATCH_ROWS = 64
"""Texts in one call of the model."""


class RegisteredTeacher(Teacher):
    """A registered model that returns labels or numbers for texts; loading it runs its code."""

    kind: Literal["mlflow"] = Field("mlflow", description="The kind of teacher.")
    model: str = Field(
        pattern=r"^models:/[^/@]+(@[^/@]+|/[0-9]+)$",
        description="models:/NAME@ALIAS or models:/NAME/VERSION, a model of any flavour that "
        "returns labels or numbers for texts. Loading it runs its code and unpickles its files: "
        "name one that you trust.",
    )
    uri: str | None = Field(
        None,
        description="MLflow URI of its registry, without a password; when absent, `tracking.uri`.",
    )
    values: Scale = Field(
        "probabilities",
        description="What its numbers are; probabilities of a single label sum to one.",
    )
    classes: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="The order of numbers that it returns without names; when absent, its "
        "`classes_`, or else the alphabetical order of the data's classes.",
    )

    def check(self, columns: RowFormat, problem: Problem) -> tuple[str, ...] | None:
        """Return the classes that are set, in their order; the model itself is opened later."""
        return self.classes

    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Raise InputError if other classes are set than the data's."""
        refuse_other_classes(self.classes, corpus, self._source)
        return []

    def probe(self, context: LabellingContext) -> list[Note]:
        """Ask it about the first rows of train, and tell if its answers are one-hot."""
        with few_retries():
            return ask_first_rows(self, context)

    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of how it is read; which version it is, `identify` tells."""
        settings = self.model_dump(exclude={"model", "uri", "classes"})
        return digest(settings, corpus.classes, corpus.problem)

    def identify(self, context: LabellingContext) -> str:
        """Return the id that the model got when it was logged, whatever version or alias it has."""
        with few_retries():
            return self._open(context).read_id()

    def answers(self, texts: Sequence[str], context: LabellingContext) -> Batches:
        """Ask the model batch by batch and return its answers.

        Raises InputError if its alias has moved to another model since `identify`.
        """
        corpus, version = context.corpus, self._open(context)
        if context.identity not in ("", version.read_id()):
            raise InputError(
                f"{self.model} has become another model during this run. Start it again, or name a "
                "version instead of an alias."
            )
        with version.load() as loaded:
            model = _Model(loaded, self.model, soft=self.values == "probabilities")
            order = self.classes or model.classes
            refuse_other_classes(order, corpus, self._source)
            reader = ReplyReader(self._source, corpus.classes, corpus.problem, self.values, order)
            yield from reader.ask(model.ask, texts, BATCH_ROWS)

    def _open(self, context: LabellingContext) -> ModelVersion:
        return find_version(self.model, self.uri or context.tracking_uri)

    @property
    def _source(self) -> str:
        """The subject of sentences about its answers."""
        return f"Answers of {self.model}"


class _Model:
    """A loaded model, asked for what says most: probabilities if it has them, else labels."""

    def __init__(self, model: PyFuncModel, address: str, *, soft: bool) -> None:
        self.address = address
        self.column = _find_column(model, address)
        inner = _open_inner(model)
        self.classes = _read_classes(inner)
        """The order of its numbers, if it is one that scikit-learn's protocol tells."""
        self._predict: Callable[[Any], Any] = model.predict
        if soft and self.classes and _predicts_labels(model) and hasattr(inner, "predict_proba"):
            self._predict = inner.predict_proba

    def ask(self, texts: list[str]) -> Any:
        """Return what it returns for texts."""
        import pandas as pd

        given = texts if self.column is None else pd.DataFrame({self.column: texts})
        try:
            return self._predict(given)
        except Exception as error:  # noqa: BLE001  # whatever its code raises
            stop_if_disk_full(error)
            raise PotstillError(
                f"{self.address} failed: {mask_credentials(say_error(error))}. It is given a list "
                "of texts, or the one column of its signature; what it answered before is kept."
            ) from None


def _find_column(model: PyFuncModel, address: str) -> str | None:
    """Return the input that a model's signature names; None if it takes a list."""
    schema = model.metadata.get_input_schema()
    names = schema.input_names() if schema is not None and schema.has_input_names() else []
    if len(names) > 1:
        raise InputError(
            f"{address} reads the columns {shortlist(names)}; a teacher is given one text. Name a "
            "model that reads texts."
        )
    return str(names[0]) if names else None


def _open_inner(model: PyFuncModel) -> Any:
    """Return the model of its own library inside one of MLflow; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return model.get_raw_model()
    except (MlflowException, AttributeError, NotImplementedError):
        return None


def _read_classes(inner: Any) -> tuple[str, ...] | None:
    classes = getattr(inner, "classes_", None)
    return tuple(map(str, classes)) if classes is not None and np.ndim(classes) == 1 else None


def _predicts_labels(model: PyFuncModel) -> bool:
    flavour = model.metadata.flavors.get("python_function", {})
    return bool(flavour.get("predict_fn", "predict") == "predict")
