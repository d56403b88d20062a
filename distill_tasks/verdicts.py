"""Verdicts on models that answered the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from distill_tasks.intervals import (
    LEVEL,
    Figure,
    Statistic,
    bootstrap,
    find_bias,
    find_interval,
    plain_value,
)
from distill_tasks.problem import Decisions
from distill_tasks.weighted_metrics import Quality, average, difference, quality

SIGNIFICANCE = round(1 - LEVEL, 9)
POWER = 0.8
"""The chance, at the rows said to be needed, that a difference this large is called BEATS."""
DISCORDANT_SHARE = 0.1
"""Share of rows that one of two models alone gets right, assumed before anything is measured."""


class Verdict(StrEnum):
    """What the data say of one model against another."""

    BEATS = "BEATS"
    NO_BEATS = "NO BEATS"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class PairedComparison:
    """The quality of one model minus another's on the same rows, and what follows from it."""

    difference: Figure
    p_value: float
    """How likely a difference so large is, either way, between models that are equally good."""
    verdict: Verdict


def compare_answers(
    gold: Decisions,
    first: Sequence[Decisions],
    second: Sequence[Decisions],
    metric: Quality = "accuracy",
    seed: int = 0,
) -> PairedComparison:
    """Compare two models by their answers (rows, classes) to the same rows; one for each seed.

    Several seeds of a model count as one whose figures are their mean.
    """
    gap = difference(
        average([quality(metric, gold, said) for said in first]),
        average([quality(metric, gold, said) for said in second]),
    )
    rows = len(gold)
    draws = bootstrap({"gap": gap}, rows, seed)["gap"]
    value = plain_value(gap, rows)
    figure = Figure(value, *find_interval(value, draws), rows)
    if metric == "accuracy":
        hits, other_hits = (
            np.array([(said == gold).all(axis=1) for said in answers])
            for answers in (first, second)
        )
        p_value = flip_signs(hits, other_hits)
    else:
        p_value = _bootstrap_p(value, draws)
    return PairedComparison(figure, p_value, decide(figure, p_value))


def decide(gap: Figure, p_value: float) -> Verdict:
    """Return BEATS, NO BEATS or INCONCLUSIVE for a difference and its, maybe corrected, p.

    BEATS if the 95 % interval lies above zero and the test agrees, NO BEATS if the interval ends
    at or below zero, else INCONCLUSIVE.
    """
    if gap.low > 0 and p_value < SIGNIFICANCE:
        return Verdict.BEATS
    if gap.high <= 0:
        return Verdict.NO_BEATS
    return Verdict.INCONCLUSIVE


def flip_signs(right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> float:
    """Return the exact two-sided p-value of equal accuracy, from hits (seeds, rows) of two models.

    Were the models equal, each row's difference could as well have had the other sign. With one
    seed each this is the exact McNemar test. Source: McNemar 1947; Pitman 1937, "Significance
    tests which may be applied to samples from any populations".
    """
    scores = right.sum(axis=0) * len(other_right) - other_right.sum(axis=0) * len(right)
    scores = scores[scores != 0]
    if not scores.size:
        return 1.0
    scores = scores // np.gcd.reduce(scores)
    chances = np.ones(1)  # of every possible sum of the scores that count for the first
    for size, count in zip(*np.unique(np.abs(scores), return_counts=True), strict=True):
        of_size = np.zeros(size * count + 1)
        of_size[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, of_size)
    centre = (len(chances) - 1) / 2
    seen = abs(scores[scores > 0].sum() - centre)
    extreme = np.abs(np.arange(len(chances)) - centre) >= seen - 1e-9
    return min(1.0, float(chances[extreme].sum()))


def estimate_ratio(
    student: Statistic, control: Statistic, teacher: Statistic, rows: int, seed: int
) -> tuple[Figure, Figure | None]:
    """Return the teacher's lead on the control, and the share of it that the student has.

    The share, the distillation ratio (student − control) / (teacher − control), is None where the
    lead is within noise. Its interval is that of plain quantiles: a ratio's draws have no mean.
    """
    statistics = {"lead": difference(teacher, control), "gain": difference(student, control)}
    draws = bootstrap(statistics, rows, seed)
    lead, gain = (plain_value(statistic, rows) for statistic in statistics.values())
    figure = Figure(lead, *find_interval(lead, draws["lead"]), rows)
    if figure.low <= 0:
        return figure, None
    safe = np.where(draws["lead"] == 0, np.finfo(float).tiny, draws["lead"])
    ends = np.quantile(draws["gain"] / safe, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return figure, Figure(gain / lead, float(ends[0]), float(ends[1]), rows)


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values of several comparisons, raised so that one false BEATS in all stays rare.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    raised = np.minimum(1, np.maximum.accumulate(np.array(p_values)[order] * factors))
    corrected = np.empty(len(order))
    corrected[order] = raised
    return [float(value) for value in corrected]


def rows_needed(gap: Figure) -> int | None:
    """Return about how many rows would call a difference of this size; None if it is not above 0.

    The interval narrows with the square root of the rows.
    """
    if gap.value <= 0:
        return None
    error = (gap.high - gap.low) / (2 * _z(1 - SIGNIFICANCE / 2))
    factor = (_z(1 - SIGNIFICANCE / 2) + _z(POWER)) * error / gap.value
    return math.ceil(gap.rows * factor**2)


def smallest_difference(rows: int) -> float:
    """Return the accuracy difference that so many rows can call with a chance of 80 %.

    One row in ten is taken to be right by one of the two models alone. Source: Connor 1987,
    "Sample size for testing differences in proportions for the paired-sample design".
    """
    return (_z(1 - SIGNIFICANCE / 2) + _z(POWER)) * math.sqrt(DISCORDANT_SHARE / rows)


def rows_for(gap: float) -> int:
    """Return the rows from which `smallest_difference` is at most this accuracy difference."""
    return math.ceil(DISCORDANT_SHARE * ((_z(1 - SIGNIFICANCE / 2) + _z(POWER)) / gap) ** 2)


def _bootstrap_p(value: float, draws: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of no difference, read off the draws less their bias."""
    centred = draws - find_bias(value, draws)
    below, above = int((centred <= 0).sum()), int((centred >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(draws) + 1))


def _z(share: float) -> float:
    return float(norm.ppf(share))
