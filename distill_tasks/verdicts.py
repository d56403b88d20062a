"""Verdicts on pairs of models that answered the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

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
    verdict: Verdict


def compare_paired(
    right: NDArray[np.bool_], other_right: NDArray[np.bool_], seed: int = 0
) -> PairedComparison:
    """Compare two models by which rows (rows,) each got right.

    BEATS if the 95 % interval of the accuracy difference lies above zero, NO BEATS if it ends at
    or below zero, INCONCLUSIVE if it contains zero and goes on above it.
    """
    gap = right.astype(np.float32) - other_right.astype(np.float32)
    mean: Statistic = lambda weights: (weights @ gap).astype(np.float64) / len(gap)  # noqa: E731
    difference = estimate({"difference": mean}, len(gap), seed)["difference"]
    return PairedComparison(difference, _decide(difference))


def _decide(difference: Figure) -> Verdict:
    if difference.low > 0:
        return Verdict.BEATS
    if difference.high <= 0:
        return Verdict.NO_BEATS
    return Verdict.INCONCLUSIVE
