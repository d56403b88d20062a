"""Numbers that a teacher states for classes: checked, and turned into logits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from distill_tasks.core.errors import InputError, did_you_mean, shortlist

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distill_tasks.data.corpus import Corpus
    from distill_tasks.problems.classification import Problem

Scale = Literal["logits", "probabilities"]
"""What the numbers are; probabilities of a single label sum to one."""

SMALLEST_PROBABILITY = 1e-6
"""Probabilities of zero are raised to this, so that their logarithm is finite."""
SUM_TOLERANCE = 1e-3
"""How far from one the probabilities of a row may add up."""


def to_logits(values: NDArray[np.float64], problem: Problem) -> NDArray[np.float64]:
    """Return logits (rows, classes) whose softmax, or of several labels sigmoid, is ``values``."""
    if problem == "single_label":
        return np.log(np.maximum(values, SMALLEST_PROBABILITY))
    clipped = np.clip(values, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    logits: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits


def one_hot(
    labels: Sequence[Collection[str]], classes: Sequence[str], source: str
) -> NDArray[np.float64]:
    """Return the labels of each row as probabilities (rows, classes) of zero and one.

    Raises InputError, which begins with ``source``, for a label that is none of the classes.
    """
    values, numbers = np.zeros((len(labels), len(classes))), {c: n for n, c in enumerate(classes)}
    for row, names in enumerate(labels):
        refuse_unknown(names, classes, source)
        values[row, [numbers[name] for name in names]] = 1
    return values


def refuse_unknown(names: Collection[str], classes: Sequence[str], source: str) -> None:
    """Raise InputError, which begins with ``source``, unless all names are classes."""
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise InputError(
            f"{source} have the label {unknown[0]!r}{did_you_mean(unknown[0], classes)}, which is "
            f"no class of the data: {shortlist(classes)}. Rename it, or leave these rows out."
        )


def refuse_other_classes(order: Sequence[str] | None, corpus: Corpus, source: str) -> None:
    """Raise InputError, which begins with ``source``, if an order names other classes."""
    if order is not None and set(order) != set(corpus.classes):
        raise InputError(
            f"{source} have the classes {shortlist(sorted(order))}; the data has "
            f"{shortlist(sorted(corpus.classes))}. Correct the names on one side."
        )


def refuse_bad_values(
    values: NDArray[np.float64],
    scale: Scale,
    problem: Problem,
    *,
    source: str,
    rows: Sequence[object] | None = None,
) -> None:
    """Raise InputError, which begins with ``source``, for numbers (rows, classes) of no use.

    Those are NaN, infinities, and probabilities outside zero to one or, of a single label, that do
    not sum to one. ``rows`` are their names in messages, by default their numbers.
    """
    named = np.arange(len(values)) if rows is None else rows
    broken = _find_broken(values)
    if broken.size:
        raise InputError(
            f"{source} have NaN or infinite values in {broken.size} rows "
            f"(row {_name(broken, named)}). Ask the teacher again for those rows."
        )
    if scale == "logits":
        return
    outside = ((values < 0) | (values > 1 + 1e-6)).any(axis=1)
    if problem == "multi_label":
        if outside.any():
            raise InputError(
                f"{source} are no probabilities in {outside.sum()} rows (row "
                f"{_name(np.flatnonzero(outside), named)}). Give 0 to 1, or say `values: logits`."
            )
        return
    off = np.flatnonzero((np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE) | outside)
    if off.size:
        raise InputError(
            f"{source} do not sum to one in {off.size} rows "
            f"(row {_name(off, named)}). Normalise them, or say `values: logits`."
        )


def _find_broken(values: NDArray[np.float64]) -> NDArray[np.int64]:
    most = np.finfo(np.float32).max  # beyond it they become infinite
    return np.flatnonzero(~(np.abs(values) <= most).all(axis=1))


def _name(numbers: NDArray[np.int64], rows: Sequence[object] | NDArray[np.int64]) -> str:
    return shortlist(rows[number] for number in numbers)
