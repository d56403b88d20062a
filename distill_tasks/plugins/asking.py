"""Asking student, teacher and baseline the same rows, whichever kinds of models they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distill_tasks.core.errors import InputError, say_error, shortlist
from distill_tasks.measuring.latency import Answers as TimedAnswers
from distill_tasks.measuring.latency import MeasureConfig, time_models
from distill_tasks.plugins.answers import (
    Answers,
    add_probabilities,
    join_answers,
    read_answers,
    say_label,
)

if TYPE_CHECKING:
    from mlflow.models.evaluation import EvaluationDataset

    from distill_tasks.measuring.latency import Latency
    from distill_tasks.plugins.request import Request

Rows = pd.DataFrame | NDArray[Any]
"""What models are asked: a table, or an array (rows, columns)."""

STUDENT, TEACHER, BASELINE = "student", "teacher", "baseline"
BATCH_ROWS = 64


@dataclass(frozen=True)
class Asked:
    """The rows, and the answers of each model to them."""

    rows: Rows
    gold: NDArray[np.object_] | None
    """The right label of each row (rows,), as text."""
    answers: dict[str, Answers]
    """By role: student, teacher, and baseline if there is one."""
    latencies: dict[str, Latency]
    """Of the models that answered here, all timed in one interleaved run."""


def ask_all(
    request: Request, dataset: EvaluationDataset, model: Any, predictions: str | None
) -> Asked:
    """Return what each model answers to the rows of a data set.

    Raises InputError where one cannot be found, or does not answer row by row.
    """
    given = {TEACHER: request.teacher, BASELINE: request.baseline}
    given = {role: source for role, source in given.items() if source is not None}
    rows, columns = _part_rows(dataset.features_data, given)
    models = {STUDENT: model} if model is not None else {}
    answers: dict[str, Answers] = {}
    if model is None:
        answers[STUDENT] = read_answers(dataset.predictions_data, request.classes)
    for role, source in given.items():
        if role in columns:
            answers[role] = read_answers(columns[role].tolist(), request.classes)
        elif isinstance(source, str):
            models[role] = _open(role, source, dataset.features_data)
        else:
            answers[role] = read_answers(source, request.classes)
    for role, opened in models.items():
        column = predictions if role == STUDENT else None
        answers[role] = ask(opened, rows, request.classes, column)
    for role, said in answers.items():
        if len(said) != len(rows):
            raise InputError(
                f"The {role} gave {len(said)} answers to {len(rows)} rows. "
                "One answer for each row is needed."
            )
    gold = dataset.labels_data
    right = None if gold is None else np.array([say_label(value) for value in gold], object)
    ordered = {role: answers[role] for role in (STUDENT, *given)}
    return Asked(rows, right, ordered, time_all(models, rows, request.latency_calls))


def ask(
    model: Any, rows: Rows, classes: Sequence[Any] | None = None, column: str | None = None
) -> Answers:
    """Return a model's answers to all rows, asked in batches."""
    rows = _take_inputs(model, rows)
    starts = range(0, len(rows), BATCH_ROWS)
    batches = [_take(rows, slice(start, start + BATCH_ROWS)) for start in starts]
    return join_answers([_ask_batch(model, batch, classes, column) for batch in batches])


def time_all(models: dict[str, Any], rows: Rows, calls: int) -> dict[str, Latency]:
    """Return the latency of each model, asked one row at a time as MLflow serves it."""
    if not calls or not models:
        return {}
    picks = np.random.default_rng(0).choice(len(rows), min(len(rows), calls), replace=False)
    answering = {role: _answer_picks(model, rows, picks) for role, model in models.items()}
    return time_models(answering, [str(row) for row in picks], MeasureConfig(calls=calls))


def _answer_picks(model: Any, rows: Rows, picks: NDArray[np.int64]) -> TimedAnswers:
    """Return a function that answers rows by their numbers, of which single ones lie ready."""
    rows = _take_inputs(model, rows)
    alone = {str(row): _take(rows, [int(row)]) for row in picks}

    def answer(numbers: Sequence[str]) -> object:
        if len(numbers) == 1:
            return model.predict(alone[numbers[0]])
        return model.predict(_take(rows, [int(number) for number in numbers]))

    return answer


def _part_rows(rows: Rows, given: dict[str, Any]) -> tuple[Rows, dict[str, pd.Series[Any]]]:
    """Return the rows that models are asked, and by role the columns that hold answers."""
    if not isinstance(rows, pd.DataFrame):
        return rows, {}
    names = {role: name for role, name in given.items() if isinstance(name, str) and name in rows}
    columns = {role: rows[name] for role, name in names.items()}
    return rows.drop(columns=list(names.values())), columns


def _open(role: str, uri: str, rows: Rows) -> Any:
    import mlflow

    try:
        return mlflow.pyfunc.load_model(uri)
    except Exception as error:  # noqa: BLE001  # whatever a flavour raises
        columns = shortlist(rows.columns) if isinstance(rows, pd.DataFrame) else "none"
        raise InputError(
            f"The {role} {uri!r} is neither a column of the data ({columns}) nor a model that "
            f"MLflow opens: {say_error(error)}"
        ) from None


def _ask_batch(
    model: Any, rows: Rows, classes: Sequence[Any] | None, column: str | None
) -> Answers:
    """Return the answers to a batch, with probabilities where the model inside tells them."""
    inside = _unwrap(model)
    if getattr(inside, "task", None) == "text-classification" and _is_column(rows):
        settings = {**(getattr(model, "model_config", None) or {}), "top_k": None}
        return read_answers(inside(_take_column(rows), **settings))
    answers = read_answers(model.predict(rows), classes, column)
    known = getattr(inside, "classes_", None)
    if answers.probabilities is None and known is not None and hasattr(inside, "predict_proba"):
        values = inside.predict_proba(rows)
        return add_probabilities(answers.labels, pd.DataFrame(values, columns=list(known)))
    return answers


def _unwrap(model: Any) -> Any:
    """Return the model of its own library that MLflow wraps, such as a scikit-learn estimator."""
    try:
        return model.get_raw_model()
    except (AttributeError, NotImplementedError):
        return None


def _take_inputs(model: Any, rows: Rows) -> Rows:
    """Return the columns that a model's signature names: MLflow warns of others at each call."""
    metadata = getattr(model, "metadata", None)
    schema = metadata and metadata.get_input_schema()
    if not isinstance(rows, pd.DataFrame) or schema is None or not schema.has_input_names():
        return rows
    named: pd.DataFrame = rows[[name for name in schema.input_names() if name in rows]]
    return named


def _is_column(rows: Rows) -> bool:
    return rows.ndim == 2 and rows.shape[1] == 1


def _take_column(rows: Rows) -> list[Any]:
    values = rows.to_numpy() if isinstance(rows, pd.DataFrame) else rows
    column: list[Any] = values[:, 0].tolist()
    return column


def _take(rows: Rows, places: slice | list[int]) -> Rows:
    return rows.iloc[places] if isinstance(rows, pd.DataFrame) else rows[places]
