"""Reading the answers of any classifier: labels and, where it tells them, probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distill_tasks.core.errors import InputError, shortlist

ROUNDING = 0.01
"""How far from one probabilities may sum."""


@dataclass(frozen=True)
class Answers:
    """One model's answers to all rows."""

    labels: NDArray[np.object_]
    """The label of each row (rows,), as text."""
    confidence: NDArray[np.float64] | None
    """The probability of each label (rows,), where the model tells it."""
    probabilities: pd.DataFrame | None
    """The probability of every class (rows, classes), where the model tells all of them."""

    def __len__(self) -> int:
        return len(self.labels)


def read_answers(
    output: Any, classes: Sequence[Any] | None = None, column: str | None = None
) -> Answers:
    """Return what a classifier's output says, in whichever of the usual forms it is.

    These are labels; probabilities (rows, classes); a table or records with ``label`` and perhaps
    ``score``, ``confidence`` or ``probabilities``; a table with one column of probabilities for
    each class; for each row a dictionary or a list of records of all classes. ``classes`` names
    columns that have no names, ``column`` the one with the labels. Raises InputError for others.
    """
    table = _make_table(output, classes)
    if column is not None or "label" in table or len(table.columns) == 1:
        named = column or ("label" if "label" in table else table.columns[0])
        if named not in table:
            raise InputError(f"The model's output has no column {named!r}: {_list(table)}.")
        return _read_labels(table, table[named])
    if not all(pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes):
        raise InputError(
            f"Which column of the model's output holds the label? It has {_list(table)}. Name it "
            "in the argument `predictions`."
        )
    probabilities = _check_probabilities(table)
    scores = table.to_numpy(np.float64)
    best = scores.argmax(axis=1)
    labels = np.array([say_label(name) for name in table.columns], object)[best]
    return Answers(labels, None if probabilities is None else scores.max(axis=1), probabilities)


def join_answers(parts: Sequence[Answers]) -> Answers:
    """Return the answers to several batches of rows as one."""
    sure = [part.confidence for part in parts if part.confidence is not None]
    tables = [part.probabilities for part in parts if part.probabilities is not None]
    return Answers(
        np.concatenate([part.labels for part in parts]),
        np.concatenate(sure) if len(sure) == len(parts) else None,
        pd.concat(tables, ignore_index=True).fillna(0.0) if len(tables) == len(parts) else None,
    )


def say_label(value: Any) -> str:
    """Return a label as text: 1, 1.0 and numpy's own 1 are the same class."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _make_table(output: Any, classes: Sequence[Any] | None) -> pd.DataFrame:
    """Return a model's output as a table."""
    if isinstance(output, pd.DataFrame) and not _holds_records(output):
        unnamed = isinstance(output.columns, pd.RangeIndex)
        return _name_columns(output, classes) if unnamed and classes is not None else output
    rows: list[Any] = list(output.to_numpy() if isinstance(output, pd.DataFrame) else output)
    first = rows[0] if rows else ""
    if isinstance(first, Mapping):
        return pd.DataFrame(rows) if "label" in first else _fill(rows)
    if not isinstance(first, Sequence | np.ndarray) or isinstance(first, str | bytes):
        return pd.DataFrame({"label": rows})
    if isinstance(first[0], Mapping):  # the scores of all classes, as a transformers pipeline does
        return _fill([{one["label"]: one["score"] for one in row} for row in rows])
    table = pd.DataFrame(rows)
    if classes is None and len(table.columns) > 1:
        raise InputError(
            f"The model's output has {len(table.columns)} columns without names. List the classes "
            "in their order: `classes` in the evaluator's configuration."
        )
    return table if classes is None else _name_columns(table, classes)


def _holds_records(table: pd.DataFrame) -> bool:
    """Return whether each cell is a class with its score."""
    return bool(len(table)) and all(
        isinstance(cell, Mapping) and {"label", "score"} <= cell.keys() for cell in table.iloc[0]
    )


def _name_columns(table: pd.DataFrame, classes: Sequence[Any]) -> pd.DataFrame:
    if len(classes) != len(table.columns):
        raise InputError(
            f"The model's output has {len(table.columns)} columns, but `classes` lists "
            f"{len(classes)}."
        )
    return table.set_axis(list(classes), axis=1)


def _fill(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Return one column for each class; a class that a row leaves out has no probability there."""
    return pd.DataFrame(rows).fillna(0.0)


def _read_labels(table: pd.DataFrame, column: pd.Series[Any]) -> Answers:
    """Return labels with what the columns beside them say of their probabilities."""
    if len(column) and isinstance(column.iloc[0], Mapping):  # a column of probabilities
        return read_answers(list(column))
    labels = np.array([say_label(value) for value in column], object)
    if "probabilities" in table:
        probabilities = _check_probabilities(_fill(list(table["probabilities"])))
        if probabilities is not None:
            return add_probabilities(labels, probabilities)
    told = [name for name in ("confidence", "score") if name in table]
    confidence = table[told[0]].to_numpy(np.float64) if told else None
    return Answers(labels, confidence, None)


def add_probabilities(labels: NDArray[np.object_], probabilities: pd.DataFrame) -> Answers:
    """Return labels with the probabilities of all classes (rows, classes)."""
    named = probabilities.set_axis([say_label(name) for name in probabilities.columns], axis=1)
    places = named.columns.get_indexer(pd.Index(labels))
    if (places < 0).any():
        return Answers(labels, None, None)
    sure = named.to_numpy(np.float64)[np.arange(len(labels)), places]
    return Answers(labels, sure, named)


def _check_probabilities(table: pd.DataFrame) -> pd.DataFrame | None:
    """Return a table of probabilities (rows, classes), or None where they do not sum to one."""
    named = table.set_axis([say_label(name) for name in table.columns], axis=1).astype(np.float64)
    values = named.to_numpy()
    whole = np.abs(values.sum(axis=1) - 1) <= ROUNDING
    return named.reset_index(drop=True) if whole.all() and (values >= 0).all() else None


def _list(table: pd.DataFrame) -> str:
    return shortlist([str(name) for name in table.columns])
