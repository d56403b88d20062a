"""Prediction-powered quality: few gold rows, and many that only the teacher has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distill_tasks.scoring.intervals import (
    LEVEL,
    Figure,
    Statistic,
    bootstrap,
    find_interval,
    plain_value,
)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The same statistics of several models on all rows, and on bootstrap draws of them."""

    plain: Values
    """(models,)"""
    draws: Values
    """(draws, models)"""


@dataclass(frozen=True)
class Evidence:
    """Estimates of the quality of several models, and of their differences.

    The quality on gold is shifted by what the same statistic, with the teacher's labels for gold,
    says of many further rows beyond what it says of these. The shift is weighted so that the
    variance is least, model by model and pair by pair; where the teacher's labels tell nothing,
    the weight is zero. Source: Angelopoulos, Duchi and Zrnic 2023, "PPI++: Efficient
    Prediction-Powered Inference", arXiv 2311.01453.
    """

    gold: Sample
    rows: int
    """Those with gold."""
    on_gold: Sample | None = None
    """With the teacher's labels for gold, on the same rows and draws; None without further rows."""
    further: Sample | None = None
    """With the teacher's labels, on the further rows."""
    seed: int = 0
    """Of the draws of the rows with gold."""

    @cached_property
    def qualities(self) -> list[Figure]:
        """The quality of each model with its interval."""
        figures = []
        for number, (value, draws) in enumerate(zip(self.plain, self.draws.T, strict=True)):
            low, high = find_interval(draws)
            ends = find_interval(self.gold.draws[:, number])
            alone = Figure(float(self.gold.plain[number]), *ends, self.rows)
            surer = Figure(float(value), low, high, self.rows)
            figures.append(surer if high - low < alone.high - alone.low else alone)
        return figures

    @cached_property
    def plain(self) -> Values:
        """The estimate of each model's quality (models,)."""
        return self.gold.plain + self.moved.plain

    @cached_property
    def draws(self) -> Values:
        """The estimates on bootstrap draws of all rows (draws, models)."""
        return self.gold.draws + self.moved.draws

    @cached_property
    def moved(self) -> Sample:
        """What the further rows add to the estimate from gold alone."""
        return Sample(self._weights * self._shift.plain, self._weights * self._shift.draws)

    @cached_property
    def low_gaps(self) -> Values:
        """The low end of the interval of every pairwise difference (row minus column)."""
        return np.stack([self._find_low_gaps(number) for number in range(len(self.gold.plain))])

    def _find_low_gaps(self, number: int) -> Values:
        """Return the low ends of the differences of one model and every other one (models,)."""
        gold = self.gold.draws[:, [number]] - self.gold.draws
        ends = np.quantile(gold, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        low: Values = ends[0]
        if self.further is None:
            return low
        shift = self._shift.draws[:, [number]] - self._shift.draws
        powered = gold + _weigh(gold, shift) * shift
        surer = np.quantile(powered, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return np.where(surer[1] - surer[0] < ends[1] - ends[0], surer[0], low)

    @cached_property
    def _weights(self) -> Values:
        """The weight of the shift (models,), from zero to one."""
        return _weigh(self.gold.draws, self._shift.draws)

    @cached_property
    def _shift(self) -> Sample:
        """The difference between further rows and rows with gold, by the teacher's labels."""
        if self.further is None or self.on_gold is None:
            return Sample(np.zeros_like(self.gold.plain), np.zeros_like(self.gold.draws))
        return Sample(
            self.further.plain - self.on_gold.plain, self.further.draws - self.on_gold.draws
        )


@dataclass(frozen=True)
class ByTeacher:
    """The same statistic of each model twice, with the teacher's labels for gold."""

    on_gold: Sequence[Statistic]
    """On the rows that have gold."""
    further: Sequence[Statistic]
    """On rows that have none."""
    rows: int
    """The number of those rows."""


def collect_evidence(
    gold: Sequence[Statistic], rows: int, by_teacher: ByTeacher | None = None, seed: int = 0
) -> Evidence:
    """Return the evidence on several models, each given by its statistic on gold rows.

    ``by_teacher`` is any statistic that the rows' own chance moves alike: the better it follows
    the one on gold, the surer the estimates.
    """
    count = len(gold)
    twins = by_teacher.on_gold if by_teacher else ()
    both = draw_sample([*gold, *twins], rows, seed)
    alone = Sample(both.plain[:count], both.draws[:, :count])
    if by_teacher is None:
        return Evidence(alone, rows, seed=seed)
    twin = Sample(both.plain[count:], both.draws[:, count:])
    return Evidence(
        gold=alone,
        rows=rows,
        on_gold=twin,
        further=draw_sample(by_teacher.further, by_teacher.rows, seed + 1),
        seed=seed,
    )


def draw_sample(statistics: Sequence[Statistic], rows: int, seed: int) -> Sample:
    """Return the values of statistics on all rows, and on bootstrap draws of them."""
    drawn = bootstrap({str(n): one for n, one in enumerate(statistics)}, rows, seed)
    plain = np.array([plain_value(one, rows) for one in statistics])
    return Sample(plain, np.stack(list(drawn.values()), axis=1))


def _weigh(gold: Values, shift: Values) -> Values:
    """Return the weight of each shift (models,), from zero to one, that gives the least variance.

    Of gold + weight · shift, over draws (draws, models).
    """
    centred = shift - shift.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    covariance = ((gold - gold.mean(axis=0)) * centred).mean(axis=0)
    weight: Values = np.clip(-covariance / np.where(variance > 0, variance, 1), 0, 1)
    return weight
