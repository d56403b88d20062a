"""The kind of problem: one label for each text, or any number of them, in one common form.

Whatever the kind, gold and answers become a matrix (rows, classes) that says which class is there;
a row is right where its whole row of the matrix is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Problem = Literal["single_label", "multi_label"]

Logits = NDArray[np.float32] | NDArray[np.float64]
"""Scores (rows, classes) before any softmax or sigmoid."""
Decisions = NDArray[np.bool_]
"""Which classes are there (rows, classes); exactly one in each row of a single-label problem."""
Probabilities = NDArray[np.float64]
"""Probabilities (rows, classes); rows sum to one in a single-label problem."""

NO_LABEL = -1
"""The class number of a row without gold."""
DEFAULT_THRESHOLD = 0.5
"""The probability from which a class of a multi-label problem is there, before any fitting."""
CERTAIN_ODDS = 1000
"""How much likelier than any other an answer must be to count as certain."""
LABEL_SEPARATOR = "|"
"""Stands between the labels of one text where they are written as one string."""


class Answering(Protocol):
    """A model that gives logits for texts."""

    def logits(self, texts: Sequence[str]) -> Logits:
        """Return logits (rows, classes)."""
        ...


def to_decisions(gold: NDArray[np.int64], classes: int) -> Decisions:
    """Return gold as a matrix: class numbers (rows,) or zeros and ones (rows, classes)."""
    if gold.ndim == 2:
        return gold.astype(bool)
    matrix: Decisions = gold[:, None] == np.arange(classes)
    return matrix


def find_known(gold: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows (rows,) have gold; in the others it is -1."""
    known: NDArray[np.bool_] = (gold if gold.ndim == 1 else gold[:, 0]) >= 0
    return known


def probabilities(logits: Logits, problem: Problem, temperature: float = 1.0) -> Probabilities:
    """Return softmax, or for several labels the sigmoid, of logits over a temperature."""
    return np.exp(log_probabilities(logits, problem, temperature))


def log_probabilities(logits: Logits, problem: Problem, temperature: float = 1.0) -> Probabilities:
    """Return the logarithm of `probabilities`."""
    from scipy import special

    scaled = logits.astype(np.float64) / temperature
    values: Probabilities = (
        special.log_softmax(scaled, axis=1)
        if problem == "single_label"
        else special.log_expit(scaled)
    )
    return values


def decide(
    logits: Logits, problem: Problem, thresholds: NDArray[np.float64] | None = None
) -> Decisions:
    """Return the classes that logits speak for: the highest, or all from their threshold on.

    ``thresholds`` (classes,) are probabilities, 0.5 where none were fitted.
    """
    if problem == "single_label":
        return to_decisions(logits.argmax(axis=1), logits.shape[1])
    limits = DEFAULT_THRESHOLD if thresholds is None else thresholds
    decisions: Decisions = probabilities(logits, problem) >= limits
    return decisions


def are_one_hot(logits: Logits, problem: Problem) -> bool:
    """Return whether every row of logits is certain of its answer, as hard labels are.

    Of several labels, every yes and every no is.
    """
    if problem == "multi_label":
        log_odds = np.abs(logits.astype(np.float64))
    else:
        log_odds = np.diff(np.sort(logits.astype(np.float64), axis=1))[:, -1]
    return bool((log_odds >= np.log(CERTAIN_ODDS)).all())


def confidence(
    logits: Logits, decisions: Decisions, problem: Problem, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Return how likely each whole answer (rows,) is: the probability of the decisions made.

    Several labels count as independent of each other.
    """
    values = probabilities(logits, problem, temperature)
    if problem == "single_label":
        top: NDArray[np.float64] = (values * decisions).sum(axis=1)
        return top
    whole: NDArray[np.float64] = np.where(decisions, values, 1 - values).prod(axis=1)
    return whole


def name_labels(decisions: Decisions, classes: tuple[str, ...]) -> list[str]:
    """Return the labels of each row as one string, several of them joined by ``|``."""
    return [
        LABEL_SEPARATOR.join(classes[number] for number in np.flatnonzero(row)) for row in decisions
    ]


def balance_classes(gold: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return the weight of each class (classes,) under which every class counts the same.

    A single label weighs rows / (classes · rows of its class); of several labels, the ones of each
    weigh as much as its zeros. Rows without gold are left out; a class without rows weighs one.
    Source: King and Zeng 2001, "Logistic Regression in Rare Events Data", section 4.2.
    """
    known = gold[find_known(gold)]
    counts = to_decisions(known, classes).sum(axis=0)
    others = len(known) / classes if gold.ndim == 1 else len(known) - counts
    weights = np.where((counts > 0) & (others > 0), others / np.maximum(counts, 1), 1.0)
    return weights.astype(np.float32)
