"""Calibration: what is fitted on validation and stored with the model that is served."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import (
    DEFAULT_THRESHOLD,
    Decisions,
    Logits,
    Problem,
    confidence,
    decide,
    probabilities,
)
from distill_tasks.scoring.statistics import negative_log_likelihood

TEMPERATURES = (0.05, 20.0)
"""Least and largest temperature that is fitted."""
NEVER = 2.0
"""A confidence that no answer has."""


@dataclass(frozen=True)
class Calibration:
    """How a model's logits become probabilities, labels and abstentions."""

    temperature: float = 1.0
    """Divides the logits before softmax or sigmoid."""
    thresholds: list[float] | None = None
    """Probability threshold of each class in a multi-label problem."""
    answer_from: float | None = None
    """Confidence below which the model abstains; None where it always answers."""

    def decide(self, logits: Logits, problem: Problem) -> Decisions:
        """Return which classes are predicted (rows, classes)."""
        limits = None if self.thresholds is None else np.array(self.thresholds)
        return decide((logits / self.temperature).astype(np.float32), problem, limits)

    def confidence(self, logits: Logits, problem: Problem) -> NDArray[np.float64]:
        """Return the probability of each whole answer (rows,)."""
        return confidence(logits, self.decide(logits, problem), problem, self.temperature)

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return asdict(self)


def calibrate(
    logits: Logits, gold: Decisions | None, problem: Problem, precision: float | None
) -> Calibration:
    """Fit temperature, thresholds and the confidence to answer from on validation rows.

    Without gold nothing can be fitted and the model is served as it is.
    """
    if gold is None:
        return Calibration()
    temperature = fit_temperature(logits, gold, problem)
    thresholds = None
    if problem == "multi_label":
        thresholds = fit_thresholds(probabilities(logits, problem, temperature), gold)
    fitted = Calibration(temperature, thresholds)
    if precision is None:
        return fitted
    right = (fitted.decide(logits, problem) == gold).all(axis=1)
    sure = fitted.confidence(logits, problem)
    return Calibration(temperature, thresholds, fit_answer_from(sure, right, precision))


def fit_temperature(logits: Logits, gold: Decisions, problem: Problem) -> float:
    """Return the temperature with the least negative log-likelihood of gold.

    Source: Guo, Pleiss, Sun, Weinberger 2017, "On Calibration of Modern Neural Networks".
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        values = negative_log_likelihood(logits, gold, problem, float(np.exp(log_temperature)))
        return float(values.mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def fit_thresholds(values: NDArray[np.float64], gold: Decisions) -> list[float]:
    """Return for each class the probability threshold with the best F1.

    ``values`` are probabilities (rows, classes). A class without any row of gold keeps 0.5.
    """
    return [_best_threshold(values[:, number], gold[:, number]) for number in range(gold.shape[1])]


def _best_threshold(values: NDArray[np.float64], gold: NDArray[np.bool_]) -> float:
    if not gold.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-values, kind="stable")
    predicted = np.arange(1, len(order) + 1)
    scores = 2 * np.cumsum(gold[order]) / (predicted + gold.sum())
    last_of_ties = np.append(np.diff(values[order]) != 0, True)
    return _midpoint(values[order], int(np.argmax(np.where(last_of_ties, scores, -1))))


def fit_answer_from(sure: NDArray[np.float64], right: NDArray[np.bool_], precision: float) -> float:
    """Return the least confidence from which answers (rows,) are right often enough.

    Where no confidence reaches it, the model never answers.
    """
    order = np.argsort(-sure, kind="stable")
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= precision
    last_of_ties = np.append(np.diff(sure[order]) != 0, True)
    enough = np.flatnonzero(reached & last_of_ties)
    return _midpoint(sure[order], int(enough[-1])) if enough.size else NEVER


def _midpoint(falling: NDArray[np.float64], position: int) -> float:
    """Return the middle between a value and the next lower one, so that rounding flips neither."""
    below = falling[position + 1] if position + 1 < len(falling) else 0.0
    return float((falling[position] + below) / 2)
