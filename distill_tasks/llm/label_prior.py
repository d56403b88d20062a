"""The label prior: what a teacher answers before it has read a text, and dividing by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import log_probabilities, to_decisions
from distill_tasks.scoring.calibration import fit_temperature
from distill_tasks.scoring.statistics import negative_log_likelihood

LEAST_PRIOR = 1e-6
"""A class that is never answered counts as answered so often."""
FEWEST_ROWS = 50
"""Rows of gold below which the prior is left alone."""


@dataclass(frozen=True)
class PriorChoice:
    """Whether dividing by the label prior fits gold better, each way at its best temperature."""

    rows: int
    plain_nll: float
    """Negative log-likelihood of gold, the mean over rows."""
    divided_nll: float
    """The same of the distributions divided by the prior."""
    standard_error: float
    """That of the difference, whose rows are paired."""

    @property
    def divide(self) -> bool:
        """Whether it is better by more than its standard error, on enough rows."""
        gain = self.plain_nll - self.divided_nll
        return self.rows >= FEWEST_ROWS and gain > self.standard_error


def estimate_prior(log_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean probability of each class (classes,) over rows that need no gold.

    ``log_values`` are log-probabilities (rows, classes).
    """
    prior: NDArray[np.float64] = np.exp(log_values).mean(axis=0)
    return prior


def divide_by_prior(
    log_values: NDArray[np.float64], prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return log-probabilities (rows, classes) over a prior (classes,), as log-probabilities again.

    Source: Zhao et al. 2021, "Calibrate Before Use"; Zhou et al. 2024, "Batch Calibration", for the
    prior over unlabelled rows.
    """
    return log_probabilities(log_values - np.log(np.maximum(prior, LEAST_PRIOR)), "single_label")


def choose_prior(
    log_values: NDArray[np.float64], gold: NDArray[np.int64], prior: NDArray[np.float64]
) -> PriorChoice:
    """Compare both ways on validation: log-probabilities (rows, classes) and gold (rows,).

    The prior comes from other rows than gold, and a temperature is fitted to both ways alike.
    """
    plain = _losses(log_values, gold)
    divided = _losses(divide_by_prior(log_values, prior), gold)
    rows = len(gold)
    error = float((plain - divided).std(ddof=1) / np.sqrt(rows)) if rows > 1 else np.inf
    return PriorChoice(rows, float(plain.mean()), float(divided.mean()), error)


def _losses(log_values: NDArray[np.float64], gold: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the negative log-likelihood of gold in each row (rows,), at the best temperature."""
    decisions = to_decisions(gold, log_values.shape[1])
    temperature = fit_temperature(log_values, decisions, "single_label")
    return negative_log_likelihood(log_values, decisions, "single_label", temperature)
