"""Verdicts on models that answered the same rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from distill_tasks.core.errors import shortlist
from distill_tasks.problems.classification import Decisions
from distill_tasks.scoring.intervals import (
    LEVEL,
    Figure,
    Statistic,
    bootstrap,
    find_interval,
    plain_value,
)
from distill_tasks.scoring.statistics import Quality, average, difference, f1_of_counts, quality

SIGNIFICANCE = round(1 - LEVEL, 9)
POWER = 0.8
"""The chance, at the rows said to be needed, that a difference this large is called BEATS."""
DISCORDANT_SHARE = 0.1
"""Share of rows that one of two models alone gets right, assumed before anything is measured."""
FEWEST_ROWS = 1 + math.floor(math.log2(2 / SIGNIFICANCE))
"""The fewest rows that can decide: were all of them won, by chance, p would be 2 · ½⁶ = 0.03."""
SWAPS = 10_000
SWAPS_AT_ONCE = 500
FEWEST_EXTREME = 20
"""The fewest swaps as extreme as the answers that a p-value may be counted from."""


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
    """The chance of a difference at least this large, either way, between equally good models."""
    verdict: Verdict


def compare_answers(
    gold: Decisions,
    first: Sequence[Decisions],
    second: Sequence[Decisions],
    metric: Quality = "accuracy",
    seed: int = 0,
    significance: float = SIGNIFICANCE,
) -> PairedComparison:
    """Compare two models by their answers (rows, classes) to the same rows; one for each seed.

    Several seeds of a model count as one whose figures are their mean. Where the test of F1 is not
    significant, the interval is widened to reach zero. ``significance`` is two-sided: the interval
    is that of 1 less it, stretched from the one of 95 % as that of a normal distribution would be.
    """
    gap = difference(
        average([quality(metric, gold, predicted) for predicted in first]),
        average([quality(metric, gold, predicted) for predicted in second]),
    )
    rows = len(gold)
    draws = bootstrap({"gap": gap}, rows, seed)["gap"]
    figure = stretch(Figure(plain_value(gap, rows), *find_interval(draws), rows), significance)
    if metric == "accuracy":
        hits, other_hits = (
            np.array([(predicted == gold).all(axis=1) for predicted in answers])
            for answers in (first, second)
        )
        p_value = flip_signs(hits, other_hits)
    else:
        p_value = swap_answers(gold, first, second, metric, seed, significance)
        if p_value >= significance:
            figure = replace(figure, low=min(figure.low, 0.0), high=max(figure.high, 0.0))
    return PairedComparison(figure, p_value, decide(figure, p_value, significance))


def stretch(figure: Figure, significance: float) -> Figure:
    """Return a figure whose interval of 95 % is made that of 1 less a two-sided significance."""
    if significance == SIGNIFICANCE:
        return figure
    factor = _z(1 - significance / 2) / _z(1 - SIGNIFICANCE / 2)
    below, above = figure.value - figure.low, figure.high - figure.value
    ends = figure.value - factor * below, figure.value + factor * above
    return replace(figure, low=ends[0], high=ends[1])


def decide(gap: Figure, p_value: float, significance: float = SIGNIFICANCE) -> Verdict:
    """Return BEATS, NO BEATS or INCONCLUSIVE for a difference and its p-value, corrected or not.

    BEATS if the interval lies above zero and the test agrees, NO BEATS if the interval ends at or
    below zero, else INCONCLUSIVE.
    """
    if gap.low > 0 and p_value < significance:
        return Verdict.BEATS
    if gap.high <= 0:
        return Verdict.NO_BEATS
    return Verdict.INCONCLUSIVE


def flip_signs(right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> float:
    """Return the exact two-sided p-value of equal accuracy, from hits (seeds, rows) of two models.

    If the models are equally good, each row's difference is as likely to have the other sign. With
    one seed each this is the exact McNemar test. Source: McNemar 1947; Pitman 1937, "Significance
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


def swap_answers(
    gold: Decisions,
    first: Sequence[Decisions],
    second: Sequence[Decisions],
    metric: Quality,
    seed: int,
    significance: float = SIGNIFICANCE,
) -> float:
    """Return the two-sided p-value of equal F1, from the answers (rows, classes) of two models.

    If the models are equally good, swapping their answers to a row, in all seeds at once, changes
    nothing on average. All ways to swap are tried where they are few, else 10,000 random ones, of
    which the answers as they are count as one. A significance that so many cannot tell is compared
    with the tail of a normal distribution of their spread. Source: Yeh 2000, "More accurate tests
    for the statistical significance of result differences".
    """
    turns = range(math.lcm(len(first), len(second)))
    pairs = [(first[turn % len(first)], second[turn % len(second)]) for turn in turns]
    differ = np.any([(one != other).any(axis=1) for one, other in pairs], axis=0)
    parts = [
        np.mean([_swap_pair(gold, *pair, differ, swaps, metric) for pair in pairs], axis=0)
        for swaps in _find_swaps(int(differ.sum()), seed)
    ]
    gaps = np.abs(np.concatenate(parts))
    if len(gaps) == SWAPS and significance * SWAPS < FEWEST_EXTREME and gaps[0] > 0:
        return 2 * float(norm.sf(gaps[0] / math.sqrt((gaps**2).mean())))
    return float((gaps >= gaps[0] - 1e-9).mean())


def _find_swaps(rows: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Yield which rows are swapped (swaps, rows), batch by batch; in the first swap none is."""
    if 2**rows <= SWAPS:
        yield (np.arange(2**rows)[:, None] >> np.arange(rows) & 1).astype(np.float32)
        return
    generator = np.random.default_rng(seed)
    for start in range(0, SWAPS, SWAPS_AT_ONCE):
        swaps = generator.integers(2, size=(SWAPS_AT_ONCE, rows)).astype(np.float32)
        if start == 0:
            swaps[0] = 0
        yield swaps


def _swap_pair(
    gold: Decisions,
    one: Decisions,
    other: Decisions,
    differ: NDArray[np.bool_],
    swaps: NDArray[np.float32],
    metric: Quality,
) -> NDArray[np.float64]:
    """Return F1 of one model less the other's (swaps,) after each way to swap rows that differ."""
    gains = other[differ].astype(np.float32) - one[differ]
    predicted, both = swaps @ gains, swaps @ (gains * gold[differ])
    true = gold.sum(axis=0, keepdims=True)
    ours = f1_of_counts((gold & one).sum(axis=0) + both, true, one.sum(axis=0) + predicted, metric)
    theirs = f1_of_counts(
        (gold & other).sum(axis=0) - both, true, other.sum(axis=0) - predicted, metric
    )
    return ours - theirs


def name_scarce(gold: Decisions, classes: Sequence[str], metric: Quality) -> str:
    """Return a sentence on classes with too few rows for a verdict by macro F1; empty if none."""
    rows = gold.sum(axis=0).tolist()
    few = [f"{name} ({n})" for name, n in zip(classes, rows, strict=True) if 0 < n < FEWEST_ROWS]
    if metric != "macro_f1" or not few:
        return ""
    return (
        f"held-out has too few rows of {shortlist(few)}: macro F1 counts every class alike, and "
        f"fewer than {FEWEST_ROWS} rows decide nothing"
    )


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
    figure = Figure(lead, *find_interval(draws["lead"]), rows)
    if figure.low <= 0:
        return figure, None
    safe = np.where(draws["lead"] == 0, np.finfo(float).tiny, draws["lead"])
    ends = np.quantile(draws["gain"] / safe, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return figure, Figure(gain / lead, float(ends[0]), float(ends[1]), rows)


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values of several comparisons, so raised that even one false BEATS stays rare.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    raised = np.minimum(1, np.maximum.accumulate(np.array(p_values)[order] * factors))
    corrected = np.empty(len(order))
    corrected[order] = raised
    return [float(value) for value in corrected]


def rows_needed(gap: Figure) -> int | None:
    """Return about how many rows would prove a difference of this size; None if it is not above 0.

    The interval narrows with the square root of the rows.
    """
    if gap.value <= 0:
        return None
    error = (gap.high - gap.low) / (2 * _z(1 - SIGNIFICANCE / 2))
    factor = (_z(1 - SIGNIFICANCE / 2) + _z(POWER)) * error / gap.value
    return math.ceil(gap.rows * factor**2)


def smallest_difference(rows: int) -> float:
    """Return the accuracy difference that so many rows prove with a chance of 80 %.

    One row in ten is taken to be right by one of the two models alone. Source: Connor 1987,
    "Sample size for testing differences in proportions for the paired-sample design".
    """
    return (_z(1 - SIGNIFICANCE / 2) + _z(POWER)) * math.sqrt(DISCORDANT_SHARE / rows)


def rows_for(gap: float) -> int:
    """Return the rows from which `smallest_difference` is at most this accuracy difference."""
    return math.ceil(DISCORDANT_SHARE * ((_z(1 - SIGNIFICANCE / 2) + _z(POWER)) / gap) ** 2)


def _z(share: float) -> float:
    return float(norm.ppf(share))
