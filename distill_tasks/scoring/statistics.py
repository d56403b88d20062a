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

from distill_tasks.problems.classification import Decisions, Logits, Problem, log_probabilities
from distill_tasks.scoring.intervals import Statistic, Weights, wilson

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
    """Return the first minus the second on the same rows."""
    return lambda weights: first(weights) - second(weights)


def ratio(numerator: Statistic, denominator: Statistic) -> Statistic:
    """Return one statistic over another: retention is the student's quality over the teacher's."""

    def statistic(weights: Weights) -> NDArray[np.float64]:
        below = denominator(weights)
        safe = np.where(np.abs(below) < 1e-12, np.copysign(1e-12, below), below)
        result: NDArray[np.float64] = numerator(weights) / safe
        return result

    return statistic


def quality(metric: Quality, gold: Decisions, predicted: Decisions) -> Statistic:
    """Return a metric of decisions (rows, classes) against gold."""
    if metric == "accuracy":
        return mean((gold == predicted).all(axis=1))
    return f1(gold, predicted, metric)


def f1(gold: Decisions, predicted: Decisions, metric: Quality) -> Statistic:
    """Return F1 over the classes that gold contains: their mean, weighted by rows, or of all.

    A class that no row of gold has does not count, nor does it in a draw that none of its rows is
    in; see `count_present`.
    """
    true, predictions = gold.astype(np.float32), predicted.astype(np.float32)
    both = true * predictions

    def statistic(weights: Weights) -> NDArray[np.float64]:
        return f1_of_counts(weights @ both, weights @ true, weights @ predictions, metric)

    return statistic


def f1_of_counts(
    both: NDArray[np.floating],
    true: NDArray[np.floating],
    predicted: NDArray[np.floating],
    metric: Quality,
) -> NDArray[np.float64]:
    """Return F1 (draws,) from counts (draws, classes): true positives, gold, predicted."""
    if metric == "micro_f1":
        both, true, predicted = (
            rows.sum(axis=1, keepdims=True) for rows in (both, true, predicted)
        )
    either = true + predicted
    scores = 2 * both / np.where(either > 0, either, 1).astype(np.float64)
    shares = true if metric == "weighted_f1" else true > 0
    total = shares.sum(axis=1, dtype=np.float64)
    result: NDArray[np.float64] = (scores * shares).sum(axis=1) / np.where(total > 0, total, 1)
    return result


def macro_f1_ends(gold: Decisions, predicted: Sequence[Decisions]) -> tuple[float, float]:
    """Return the ends of an interval of macro F1 that allows for classes of a few rows.

    ``predicted`` holds one matrix for each seed. Of the rows that are of a class, or predicted so,
    a share is both; Wilson's interval bounds it, and F1 is 2 · share / (1 + share). The distances
    of the classes' ends are added up in squares. Sources: Lam, Gopal and Qian 2023, "Confidence
    intervals for the F1 score", arXiv 2309.14621; Zou and Donner 2008, "Construction of confidence
    limits about effect measures".
    """
    present = gold.any(axis=0)
    true = gold[:, present].sum(axis=0)
    both = np.mean([(gold & one)[:, present].sum(axis=0) for one in predicted], axis=0)
    union = true + np.mean([one[:, present].sum(axis=0) for one in predicted], axis=0) - both
    shares = both / union
    ends = np.stack([shares, *wilson(shares, union)])
    f1_scores, low, high = 2 * ends / (1 + ends)
    below, above = np.linalg.norm([f1_scores - low, high - f1_scores], axis=1)
    total, classes = f1_scores.sum(), max(len(true), 1)
    return float((total - below) / classes), float((total + above) / classes)


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


def per_class(
    gold: Decisions, predicted: Decisions, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and rows of each class; None where a class has no rows."""
    table = []
    for number, name in enumerate(classes):
        both = int((gold[:, number] & predicted[:, number]).sum())
        true, predictions = int(gold[:, number].sum()), int(predicted[:, number].sum())
        table.append(
            {
                "class": name,
                "rows": true,
                "precision": both / predictions if predictions else None,
                "recall": both / true if true else None,
                "f1": 2 * both / (true + predictions) if true else None,
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
