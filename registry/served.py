"""Opening models of the registry as they are served, and running them on rows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_tasks.core.errors import InputError, say_error
from distill_tasks.measuring.stopwatch import Served
from distill_tasks.problems.classification import LABEL_SEPARATOR
from distill_tasks.scoring.predictions import ask_sorted

if TYPE_CHECKING:
    from distill_tasks.data.corpus import Split
    from distill_tasks.problems.classification import Decisions


class UnopenedError(InputError):
    """A model of the registry cannot be opened: there is no such version, or its files are gone."""


@dataclass(frozen=True)
class Asked:
    """A model of the registry and its labels for some rows."""

    uri: str
    model: Any
    """The `ServedModel`, run with the code of its version."""
    labels: list[list[str]]
    """The predicted labels of each row; exactly one in a single-label problem."""
    confidences: list[float]
    """How sure it is of each row's answer."""

    @property
    def place(self) -> Served:
        """Return the model's folder and the code of its version, for timing."""
        code = sys.modules[type(self.model).__module__].__file__
        assert code is not None
        return Served(str(self.model.folder), code)

    def decide(self, classes: tuple[str, ...]) -> Decisions:
        """Return its labels as decisions (rows, classes), in a given order of classes."""
        numbers = {label: number for number, label in enumerate(classes)}
        decisions = np.zeros((len(self.labels), len(classes)), bool)
        for row, labels in enumerate(self.labels):
            decisions[row, [numbers[label] for label in labels]] = True
        return decisions


def join_classes(classes: tuple[str, ...], *models: Asked) -> tuple[str, ...]:
    """Return the classes of the rows, then those that only the models know."""
    return tuple(dict.fromkeys(chain(classes, *(asked.model.classes for asked in models))))


def read_fields(model: Any) -> tuple[str, ...]:
    """Return the fields that a `ServedModel` joins; none where its version's code is older."""
    return tuple(getattr(model, "fields", ()))


def open_served(uri: str, *, compare_packages: bool = True) -> Any:
    """Return the `ServedModel` inside a model of the registry, with the code of its version.

    MLflow logs which packages are not those of its training, for which it looks through all.
    Raises UnopenedError if the URI names no model of Potstill, or if its files are not whole.
    """
    import mlflow

    try:
        opened = mlflow.pyfunc.load_model(uri, suppress_warnings=not compare_packages)
        return opened.unwrap_python_model().model
    except Exception as error:  # noqa: BLE001  # whatever the code of a version raises
        raise UnopenedError(
            f"{uri} cannot be opened as a model of Potstill: {say_error(error)}. "
            "Give models:/NAME@alias or models:/NAME/version of one whose files are there."
        ) from None


def ask(uri: str, rows: Split) -> Asked:
    """Open a model of the registry and run it on some rows.

    Raises UnopenedError if it cannot be opened, or fails on a row.
    """
    model = open_served(uri)
    several = getattr(model, "problem", "single_label") == "multi_label"
    try:
        answers = ask_sorted(model.answer, rows.texts, uri)
    except Exception as error:  # noqa: BLE001  # whatever the code of a version raises
        raise UnopenedError(f"{uri} opens, but does not answer: {say_error(error)}.") from None
    labels = [_split(a.label) if several else [a.label] for a in answers]
    return Asked(uri, model, labels, [answer.confidence for answer in answers])


def _split(label: str) -> list[str]:
    return label.split(LABEL_SEPARATOR) if label else []
