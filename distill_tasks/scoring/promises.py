"""Promises: what held-out rows must show of a model before it may be registered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import Decisions
from distill_tasks.scoring.intervals import Statistic, plain_value
from distill_tasks.scoring.scorecard import EvalSplit, Predictions
from distill_tasks.scoring.statistics import Quality, mean, quality, ratio

Measure = Literal[
    "retention", "accuracy", "macro_f1", "weighted_f1", "micro_f1", "class_recall", "class_f1"
]
"""What can be promised."""
Certainty = Literal["point", "surely"]
"""Whether the estimate or the lower end of its interval must reach what was promised."""

ERROR = 0.05
"""Chance, over all finalists together, that one is said to surely keep a promise it breaks."""
DRAWS, DRAWS_AT_ONCE = 10_000, 200


@dataclass(frozen=True)
class Promise:
    """The least value of a measure, of all rows or of those of one class."""

    measure: Measure
    least: float
    of_class: str = ""

    def __str__(self) -> str:
        of_class = f" of {self.of_class}" if self.of_class else ""
        return f"min_{self.measure}{of_class} {self.least:g}"

    @property
    def rows_needed(self) -> int | None:
        """The fewest rows whose perfect score surely keeps it; None if no number does.

        The lower end of n rows that are all right is the n-th root of the error allowed. Source:
        Clopper and Pearson 1934.
        """
        if self.least >= 1:
            return None
        return math.ceil(math.log(ERROR) / math.log(self.least))

    def can_judge(self, rows: int) -> bool:
        """Return whether so many rows are enough to judge a class by it."""
        return rows >= (self.rows_needed or 1)


@dataclass(frozen=True)
class PromiseTest:
    """The test of a promise on some rows."""

    promise: Promise
    value: float
    low: float
    """The largest value that could be promised and still be surely kept."""
    high: float
    """Any promise above this value is surely broken."""
    rows: int
    """All rows of the split, or those of the class."""
    agreement: bool
    """Whether it is about agreement with the teacher, as the rows have no gold."""

    @property
    def margin(self) -> float:
        """The estimate less what was promised."""
        return self.value - self.promise.least

    @property
    def surely_broken(self) -> bool:
        """Whether even the upper end of the interval misses what was promised."""
        return self.high < self.promise.least

    def is_kept(self, certainty: Certainty) -> bool:
        """Return whether the estimate, or the lower end of its interval, reaches the promise."""
        return self.miss(certainty) <= 0

    def miss(self, certainty: Certainty) -> float:
        """Return by what share of it the promise is missed, negative where it is exceeded."""
        found = self.value if certainty == "point" else self.low
        return (self.promise.least - found) / self.promise.least

    def move(self, by: float) -> PromiseTest:
        """Return the test with its estimate moved by what further rows add; its ends stay."""
        return replace(self, value=self.value + by)

    def __str__(self) -> str:
        agreement = " (agreement with the teacher: there is no gold)" * self.agreement
        return (
            f"{self.promise}: {self.value:.4f} [{self.low:.4f}, {self.high:.4f}] on "
            f"{self.rows:,} rows{agreement}"
        )


def share_error(finalists: int) -> list[float]:
    """Return the error that each finalist may make, tested one after the other in a fixed order.

    The first one has half of it, the others the rest in equal parts, so that trying another one
    after the first is paid for: all together stay within `ERROR`. Source: Wiens 2003, "A fixed
    sequence Bonferroni procedure for testing multiple endpoints".
    """
    if finalists < 2:
        return [ERROR] * finalists
    rest = ERROR / 2 / (finalists - 1)
    return [ERROR / 2, *[rest] * (finalists - 1)]


def check_promises(
    promises: Sequence[Promise],
    eval_split: EvalSplit,
    predictions: Predictions,
    *,
    error: float,
    seed: int,
) -> list[PromiseTest]:
    """Test every promise about a model on a split.

    ``error`` is the chance allowed, on either side, that an interval misses the truth.
    """
    tests = []
    for promise in promises:
        measured = measure(promise, eval_split, predictions)
        low, high = measured.find_ends(error, seed)
        value = plain_value(measured.statistic, len(measured.truth))
        rows = int(measured.truth.sum()) if promise.of_class else len(measured.truth)
        tests.append(PromiseTest(promise, value, low, high, rows, eval_split.gold is None))
    return tests


def measure(promise: Promise, eval_split: EvalSplit, predictions: Predictions) -> Measured:
    """Return the measure that a promise is about, for a model's predictions."""
    whole = (
        eval_split.truth,
        eval_split.decide(predictions),
        eval_split.decide(eval_split.teacher),
    )
    if promise.measure == "class_recall" or promise.measure == "class_f1":
        number = eval_split.classes.index(promise.of_class)
        truth, ours, teacher = (one[:, [number]] for one in whole)
        return Measured(promise.measure, "macro_f1", truth, ours, teacher)
    metric = eval_split.metric if promise.measure == "retention" else promise.measure
    if metric == "accuracy":  # whether a row is right is all that counts
        truth, ours, teacher = ((one == whole[0]).all(axis=1, keepdims=True) for one in whole)
        return Measured(promise.measure, metric, truth, ours, teacher)
    return Measured(promise.measure, metric, *whole)


@dataclass(frozen=True)
class Measured:
    """A measure that can be promised, of the decisions (rows, classes) that it is about."""

    name: Measure
    metric: Quality
    """The quality that it is computed from."""
    truth: Decisions
    ours: Decisions
    teacher: Decisions

    @property
    def statistic(self) -> Statistic:
        """The measure as a function of row weights."""
        ours = quality(self.metric, self.truth, self.ours)
        if self.name == "retention":
            return ratio(ours, quality(self.metric, self.truth, self.teacher))
        if self.name == "class_recall":
            return ratio(mean((self.truth & self.ours)[:, 0]), mean(self.truth[:, 0]))
        return ours

    def find_ends(self, error: float, seed: int) -> tuple[float, float]:
        """Return ends beyond which the true value is with a chance of ``error`` on either side.

        Rows are weighed at random, once with one more row that the model has wrong and the teacher
        right, once with one that it has right and the teacher wrong; F1 over classes takes one of
        every class. For a share this is the exact interval of Clopper and Pearson; for other means
        of bounded figures it is that of Gaffke 2005, "Three test statistics for a nonparametric
        one-sided hypothesis on the mean of a nonnegative variable"; see Learned-Miller and Thomas
        2019, "A new confidence interval for the mean of a bounded random variable".
        """
        rows, classes = self.truth.sum(axis=0), self.truth.shape[1]
        alone = rows.argmax(keepdims=True)
        which = np.flatnonzero(rows) if self.metric in ("macro_f1", "weighted_f1") else alone
        added = np.eye(classes, dtype=bool)[which if which.size else alone]
        nothing = np.zeros_like(added)
        worst, best = self._add(added, nothing, added), self._add(added, added, nothing)
        low, high = np.quantile(worst._draw(seed), error), np.quantile(best._draw(seed), 1 - error)
        return float(low), float(high)

    def _add(self, truth: Decisions, ours: Decisions, teacher: Decisions) -> Measured:
        """Return the measure with further rows added."""
        return replace(
            self,
            truth=np.concatenate([self.truth, truth]),
            ours=np.concatenate([self.ours, ours]),
            teacher=np.concatenate([self.teacher, teacher]),
        )

    def _draw(self, seed: int) -> NDArray[np.float64]:
        """Return the measure (draws,) under random weights of the rows.

        Rows that are alike are drawn as one: their weights are exponential, so their sum is gamma.
        """
        rows = np.hstack([self.truth, self.ours, self.teacher])
        cells, counts = np.unique(rows, axis=0, return_counts=True)
        truth, ours, teacher = np.split(cells, 3, axis=1)
        statistic = replace(self, truth=truth, ours=ours, teacher=teacher).statistic
        generator, size = np.random.default_rng(seed), (DRAWS_AT_ONCE, len(counts))
        drawn = [
            statistic(generator.standard_gamma(counts, size).astype(np.float32))
            for _ in range(0, DRAWS, DRAWS_AT_ONCE)
        ]
        return np.concatenate(drawn)
