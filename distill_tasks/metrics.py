"""Metrics as functions of row weights, so that one bootstrap gives every one its interval.

Each function takes what is known of the rows and returns a `Statistic`: weights (draws, rows) to
values (draws,). With all weights at one a statistic is the plain metric.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_tasks.intervals import Statistic, Weights

Labels = NDArray[np.int64]
Logits = NDArray[np.float32]

CALIBRATION_BINS = 15


def share(hits: NDArray[np.bool_]) -> Statistic:
    """Return the share of rows (rows,) that are hits: accuracy, agreement."""
    values = hits.astype(np.float32)
    return lambda weights: _mean(weights, values)


def ratio_of_shares(hits: NDArray[np.bool_], of: NDArray[np.bool_]) -> Statistic:
    """Return one share over another: retention is the student's accuracy over the teacher's."""
    numerator, denominator = share(hits), share(of)

    def statistic(weights: Weights) -> NDArray[np.float64]:
        ratio: NDArray[np.float64] = numerator(weights) / np.maximum(denominator(weights), 1e-12)
        return ratio

    return statistic


def mean_divergence(student: Logits, teacher: Logits) -> Statistic:
    """Return the mean KL(teacher‖student) in nats of logits (rows, classes), zero at equality."""
    student_log, teacher_log = log_softmax(student), log_softmax(teacher)
    values = (np.exp(teacher_log) * (teacher_log - student_log)).sum(axis=1).astype(np.float32)
    return lambda weights: _mean(weights, values)


def macro_f1(labels: Labels, predicted: Labels, classes: int) -> Statistic:
    """Return the mean F1 over the classes that the labels contain."""
    present = np.unique(labels)
    true = np.eye(classes, dtype=np.float32)[labels][:, present]
    said = np.eye(classes, dtype=np.float32)[predicted][:, present]

    def statistic(weights: Weights) -> NDArray[np.float64]:
        both = weights @ (true * said)
        total = weights @ true + weights @ said
        f1 = 2 * both / np.maximum(total, 1)
        mean: NDArray[np.float64] = np.mean(f1, axis=1, dtype=np.float64)
        return mean

    return statistic


def calibration_error(logits: Logits, labels: Labels) -> Statistic:
    """Return the expected calibration error over bins of equal mass.

    Source: Naeini, Cooper, Hauskrecht 2015 (ECE); Nguyen and O'Connor 2015 (equal mass).
    """
    probabilities = np.exp(log_softmax(logits))
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    order = np.argsort(confidence, kind="stable")
    member = np.zeros((len(labels), CALIBRATION_BINS), np.float32)
    for number, rows in enumerate(np.array_split(order, CALIBRATION_BINS)):
        member[rows, number] = gap[rows]

    def statistic(weights: Weights) -> NDArray[np.float64]:
        error = np.abs(weights @ member).sum(axis=1, dtype=np.float64)
        mean: NDArray[np.float64] = error / weights.sum(axis=1, dtype=np.float64)
        return mean

    return statistic


def per_class(labels: Labels, predicted: Labels, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and rows of each class; None where a class has no rows."""
    table = []
    for number, name in enumerate(classes):
        both = int(((labels == number) & (predicted == number)).sum())
        true, said = int((labels == number).sum()), int((predicted == number).sum())
        table.append(
            {
                "class": name,
                "rows": true,
                "precision": both / said if said else None,
                "recall": both / true if true else None,
                "f1": 2 * both / (true + said) if true else None,
            }
        )
    return table


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log-probabilities (rows, classes) of logits."""
    from scipy import special

    values: NDArray[np.float64] = special.log_softmax(logits.astype(np.float64), axis=1)
    return values


def _mean(weights: Weights, values: NDArray[np.float32]) -> NDArray[np.float64]:
    total = weights.sum(axis=1, dtype=np.float64)
    mean: NDArray[np.float64] = (weights @ values) / total
    return mean
