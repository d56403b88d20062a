"""Single-label and multi-label classification in one common form.

In both, gold and predictions become a matrix (rows, classes) of the classes that apply to each
text. An answer is right if its whole row of the matrix is right.
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
"""Which classes apply (rows, classes); exactly one in each row of a single-label problem."""
Probabilities = NDArray[np.float64]
"""Probabilities (rows, classes); rows sum to one in a single-label problem."""

NO_LABEL = -1
"""The class number of a row without gold."""
DEFAULT_THRESHOLD = 0.5
"""The probability from which a class of a multi-label problem applies, before any fitting."""
CERTAIN_ODDS = 1000
"""How much likelier than any other an answer must be to count as certain."""
LABEL_SEPARATOR = "|"
"""Separates the labels of one text that are written as one string."""


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
    """Return which rows (rows,) have gold; in the others gold is -1."""
    known: NDArray[np.bool_] = (gold if gold.ndim == 1 else gold[:, 0]) >= 0
    return known


def probabilities(logits: Logits, problem: Problem, temperature: float = 1.0) -> Probabilities:
    """Return the softmax, or in a multi-label problem the sigmoid, of logits over a temperature."""
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
    """Return the decisions (rows, classes) for logits: the highest class of a single-label problem.

    In a multi-label problem these are the classes whose probability reaches their threshold;
    ``thresholds`` (classes,) are 0.5 if none were fitted.
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
    """Return the confidence (rows,): the probability of all decisions about a row together.

    The labels of a multi-label problem are treated as independent of each other.
    """
    values = probabilities(logits, problem, temperature)
    if problem == "single_label":
        top: NDArray[np.float64] = (values * decisions).sum(axis=1)
        return top
    whole: NDArray[np.float64] = np.where(decisions, values, 1 - values).prod(axis=1)
    return whole


def find_margins(
    values: Probabilities, problem: Problem, thresholds: Sequence[float] | float = DEFAULT_THRESHOLD
) -> NDArray[np.float64]:
    """Return the lead (rows,) of the likeliest class by probabilities (rows, classes).

    Of several labels it is how far the nearest one is from its threshold.
    """
    if problem == "multi_label":
        gaps: NDArray[np.float64] = np.abs(values - np.asarray(thresholds)).min(axis=1)
        return gaps
    lead: NDArray[np.float64] = np.diff(np.sort(values, axis=1))[:, -1]
    return lead


def name_labels(decisions: Decisions, classes: tuple[str, ...]) -> list[str]:
    """Return the labels of each row as one string, joined by ``|`` if there are several."""
    return [
        LABEL_SEPARATOR.join(classes[number] for number in np.flatnonzero(row)) for row in decisions
    ]


def balance_classes(gold: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return the weight of each class (classes,) that gives all classes the same total weight.

    In a single-label problem it is rows / (classes · rows of the class); in a multi-label problem
    the rows with a label weigh as much as those without it. Rows without gold are left out; a class
    without rows has weight one.
    Source: King and Zeng 2001, "Logistic Regression in Rare Events Data", section 4.2.
    """
    known = gold[find_known(gold)]
    counts = to_decisions(known, classes).sum(axis=0)
    others = len(known) / classes if gold.ndim == 1 else len(known) - counts
    weights = np.where((counts > 0) & (others > 0), others / np.maximum(counts, 1), 1.0)
    return weights.astype(np.float32)
