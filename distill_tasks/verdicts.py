"""Verdicts on pairs of models that answered the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from distill_tasks.intervals import Figure, Statistic, estimate


class Verdict(StrEnum):
    """What the data say of one model against another."""

    BEATS = "BEATS"
    NO_BEATS = "NO BEATS"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class PairedComparison:
    """The accuracy of one model minus another's on the same rows, and what follows from it."""

    difference: Figure
    p_value: float
    """Exact McNemar: how likely so lopsided a split of the rows that one alone got right is."""
    verdict: Verdict


SIGNIFICANCE = 0.05


def compare_paired(
    right: NDArray[np.bool_], other_right: NDArray[np.bool_], seed: int = 0
) -> PairedComparison:
    """Compare two models by which rows (rows,) each got right.

    BEATS if the 95 % bootstrap interval of the accuracy difference lies above zero and the exact
    McNemar test agrees, NO BEATS if the interval ends at or below zero, else INCONCLUSIVE.
    Source: McNemar 1947, in its exact binomial form.
    """
    gap = right.astype(np.float32) - other_right.astype(np.float32)
    mean: Statistic = lambda weights: (weights @ gap).astype(np.float64) / len(gap)  # noqa: E731
    difference = estimate({"difference": mean}, len(gap), seed)["difference"]
    won, lost = int((gap > 0).sum()), int((gap < 0).sum())
    p_value = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return PairedComparison(difference, p_value, _decide(difference, p_value))


def _decide(difference: Figure, p_value: float) -> Verdict:
    if difference.low > 0 and p_value < SIGNIFICANCE:
        return Verdict.BEATS
    if difference.high <= 0:
        return Verdict.NO_BEATS
    return Verdict.INCONCLUSIVE
