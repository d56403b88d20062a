"""Metrics as functions of row weights, so that one bootstrap gives every one its interval.

Each function takes what is known of the rows and returns a `Statistic`: weights (draws, rows) to
values (draws,). With all weights at one a statistic is the plain metric. `metrics` offers the same
as modules of the library `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distill_tasks.intervals import Statistic, Weights
from distill_tasks.problem import Decisions, Logits, Problem, log_probabilities

Quality = Literal["accuracy", "macro_f1", "weighted_f1", "micro_f1"]
"""A metric against gold by which students are selected and judged."""

QUALITY_NAMES: dict[Quality, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "micro_f1": "micro F1",
}
"""The metrics as people write them."""

CALIBRATION_BINS = 15
TOP_CLASSES = 3
"""Classes that `top_overlap` compares, where a problem has more."""


def mean(values: NDArray[np.floating] | NDArray[np.bool_]) -> Statistic:
    """Return the mean over rows of values (rows,); of hits it is a share."""
    as_numbers = values.astype(np.float32)

    def statistic(weights: Weights) -> NDArray[np.float64]:
        total = weights.sum(axis=1, dtype=np.float64)
        result: NDArray[np.float64] = (weights @ as_numbers) / total
        return result

    return statistic


def average(statistics: Sequence[Statistic]) -> Statistic:
    """Return the mean of several statistics: one figure for several seeds."""
    if len(statistics) == 1:
        return statistics[0]

    def statistic(weights: Weights) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.mean([each(weights) for each in statistics], axis=0)
        return result

    return statistic


def difference(first: Statistic, second: Statistic) -> Statistic:
    """Return the first less the second on the same rows."""
    return lambda weights: first(weights) - second(weights)


def ratio(numerator: Statistic, denominator: Statistic) -> Statistic:
    """Return one statistic over another: retention is the student's quality over the teacher's."""

    def statistic(weights: Weights) -> NDArray[np.float64]:
        below = denominator(weights)
        safe = np.where(np.abs(below) < 1e-12, np.copysign(1e-12, below), below)
        result: NDArray[np.float64] = numerator(weights) / safe
        return result

    return statistic


def quality(metric: Quality, gold: Decisions, said: Decisions) -> Statistic:
    """Return a metric of decisions (rows, classes) against gold."""
    if metric == "accuracy":
        return mean((gold == said).all(axis=1))
    return f1(gold, said, metric)


def f1(gold: Decisions, said: Decisions, metric: Quality) -> Statistic:
    """Return F1 over the classes that gold contains: their mean, weighted by rows, or of all.

    A class that no row of gold has does not count; see `count_present`.
    """
    present = gold.any(axis=0)
    true, answered = gold.astype(np.float32), said.astype(np.float32)
    if metric == "micro_f1":
        both, total = (true * answered).sum(axis=1), (true + answered).sum(axis=1)
        return ratio(mean(2 * both), mean(total))
    true, answered = true[:, present], answered[:, present]

    def statistic(weights: Weights) -> NDArray[np.float64]:
        rows = weights @ true
        scores = 2 * (weights @ (true * answered)) / np.maximum(rows + weights @ answered, 1)
        shares = np.ones_like(rows) if metric == "macro_f1" else rows
        total = np.maximum(shares.sum(axis=1, dtype=np.float64), 1)
        result: NDArray[np.float64] = (scores * shares).sum(axis=1, dtype=np.float64) / total
        return result

    return statistic


def count_present(gold: Decisions) -> int:
    """Return the number of classes that gold contains: those that F1 is taken over."""
    return int(gold.any(axis=0).sum())


def kl_divergence(student: Logits, teacher: Logits, problem: Problem) -> NDArray[np.float64]:
    """Return KL(teacher‖student) in nats of each row (rows,), zero at equality.

    Of several labels it is the sum over the labels.
    """
    return _divergence(_log_outcomes(teacher, problem), _log_outcomes(student, problem))


def js_divergence(student: Logits, teacher: Logits, problem: Problem) -> NDArray[np.float64]:
    """Return the Jensen–Shannon divergence in nats of each row (rows,), zero at equality.

    It is symmetric and at most ln 2 for each decision. Source: Lin 1991.
    """
    first, second = _log_outcomes(student, problem), _log_outcomes(teacher, problem)
    middle = np.logaddexp(first, second) - np.log(2)
    halves: NDArray[np.float64] = 0.5 * (_divergence(first, middle) + _divergence(second, middle))
    return np.maximum(halves, 0)


def top_overlap(student: Logits, teacher: Logits) -> NDArray[np.float64]:
    """Return the share (rows,) of the teacher's top classes that are the student's top ones too.

    Three classes are compared, or all but one where there are fewer than four.
    """
    count = max(1, min(TOP_CLASSES, student.shape[1] - 1))
    ours, theirs = (np.argsort(-x, axis=1, kind="stable")[:, :count] for x in (student, teacher))
    shared: NDArray[np.float64] = (ours[:, :, None] == theirs[:, None, :]).any(axis=2).mean(axis=1)
    return shared


def negative_log_likelihood(
    logits: Logits, gold: Decisions, problem: Problem, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Return −log of the probability given to the gold of each row (rows,), in nats."""
    outcomes = _log_outcomes(logits, problem, temperature)
    result: NDArray[np.float64] = -(outcomes * _outcomes(gold, problem)).sum(axis=(1, 2))
    return result


def brier_score(
    logits: Logits, gold: Decisions, problem: Problem, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Return the squared distance of probabilities from gold, summed over classes, of each row.

    Source: Brier 1950, in its original form of several classes (0 to 2 for a single label).
    """
    gap = np.exp(log_probabilities(logits, problem, temperature)) - gold
    squared: NDArray[np.float64] = (gap**2).sum(axis=1)
    return squared


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> Statistic:
    """Return the expected calibration error of confidences (rows,) over bins of equal mass.

    Source: Naeini, Cooper, Hauskrecht 2015 (ECE); Nguyen and O'Connor 2015 (equal mass).
    """
    gap = right - confidence
    member = np.zeros((len(right), CALIBRATION_BINS), np.float32)
    for number, rows in enumerate(equal_mass_bins(confidence)):
        member[rows, number] = gap[rows]

    def statistic(weights: Weights) -> NDArray[np.float64]:
        error = np.abs(weights @ member).sum(axis=1, dtype=np.float64)
        result: NDArray[np.float64] = error / weights.sum(axis=1, dtype=np.float64)
        return result

    return statistic


def equal_mass_bins(confidence: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Return the row numbers of each bin, from the least to the most confident rows."""
    return np.array_split(np.argsort(confidence, kind="stable"), CALIBRATION_BINS)


def per_class(gold: Decisions, said: Decisions, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and rows of each class; None where a class has no rows."""
    table = []
    for number, name in enumerate(classes):
        both = int((gold[:, number] & said[:, number]).sum())
        true, answered = int(gold[:, number].sum()), int(said[:, number].sum())
        table.append(
            {
                "class": name,
                "rows": true,
                "precision": both / answered if answered else None,
                "recall": both / true if true else None,
                "f1": 2 * both / (true + answered) if true else None,
            }
        )
    return table


def _log_outcomes(
    logits: Logits, problem: Problem, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Return log-probabilities (rows, decisions, outcomes).

    A single label is one decision among the classes; several labels are one yes or no each.
    """
    yes = log_probabilities(logits, problem, temperature)
    if problem == "single_label":
        return yes[:, None, :]
    return np.stack([yes, log_probabilities(-logits, problem, temperature)], axis=2)


def _outcomes(gold: Decisions, problem: Problem) -> NDArray[np.bool_]:
    """Return which outcome came true, shaped as `_log_outcomes`."""
    return gold[:, None, :] if problem == "single_label" else np.stack([gold, ~gold], axis=2)


def _divergence(of: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = (np.exp(of) * (of - by)).sum(axis=(1, 2))
    return result
