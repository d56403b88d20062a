"""Figures with 95 % intervals, from one bootstrap that every metric shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
"""How often each row was drawn: (draws, rows)."""

Statistic = Callable[[Weights], NDArray[np.float64]]
"""A metric as a function of row weights (draws, rows), one value (draws,) each."""

DRAWS = 1000
DRAWS_AT_ONCE = 100
KEPT_WEIGHTS = 2**22
"""A run judges many models on the same draws of the same rows; as many are kept, a byte each."""
LEVEL = 0.95
SIDE = round((1 - LEVEL) / 2, 9)
"""The chance that the truth is beyond one given end of an interval."""


@dataclass(frozen=True)
class Figure:
    """A measured value with the ends of its interval and the number of rows behind it."""

    value: float
    low: float
    high: float
    rows: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    @property
    def points(self) -> str:
        """A difference of shares in percentage points, for people."""
        value, low, high = (100 * share for share in (self.value, self.low, self.high))
        return f"{value:+.2f} points [{low:+.2f}, {high:+.2f}]"


def estimate(
    statistics: Mapping[str, Statistic], rows: int, seed: int, biased: Collection[str] = ()
) -> dict[str, Figure]:
    """Return each statistic on all rows with its percentile bootstrap interval.

    All statistics see the same draws, so their intervals are comparable. ``biased`` names errors,
    never below zero, which a draw of rows moves on average. Source: Efron and Tibshirani 1993, "An
    Introduction to the Bootstrap", sections 10.2 and 13.3.
    """
    figures = {}
    for name, draws in bootstrap(statistics, rows, seed).items():
        value = plain_value(statistics[name], rows)
        freed = np.maximum(draws - find_bias(value, draws), 0) if name in biased else draws
        figures[name] = Figure(value, *find_interval(freed), rows)
    return figures


def plain_value(statistic: Statistic, rows: int) -> float:
    """Return a statistic with every row weighing the same."""
    return float(statistic(np.ones((1, rows), np.float32))[0])


def find_interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the interval of a statistic whose bootstrap draws (draws,) are given."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def find_bias(value: float, draws: NDArray[np.float64]) -> float:
    """Return the bias of a statistic under the bootstrap, zero if it may be chance.

    A draw of rows repeats some of them, which raises the calibration error. What a draw leaves out
    is no bias: it is what so few rows do not say, as where macro F1 loses a class.
    Taking off what is chance would only add noise: intervals of shares would hold the truth in
    93.6 instead of 95.4 % (docs/decisions.md).
    """
    bias = float(draws.mean() - value)
    noise = float(draws.std() / np.sqrt(len(draws)))
    return bias if abs(bias) > 3 * noise else 0.0


def wilson(
    shares: NDArray[np.float64], trials: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both ends (n,) of the score intervals of shares (n,), each of so many trials (n,).

    Unlike those of a bootstrap they are honest about a few trials that all went the same way.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = shares + z**2 / (2 * trials)
    reach = z * np.sqrt(shares * (1 - shares) / trials + (z / (2 * trials)) ** 2)
    whole = 1 + z**2 / trials
    return np.maximum((middle - reach) / whole, 0), np.minimum((middle + reach) / whole, 1)


def exact_share(hits: int, rows: int) -> Figure:
    """Return the share of rows that are hits, with its exact interval; there must be rows.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the
    case of the binomial".
    """
    from scipy.stats import beta

    low = float(beta.ppf(SIDE, hits, rows - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - SIDE, hits + 1, rows - hits)) if hits < rows else 1.0
    return Figure(hits / rows, low, high, rows)


def subtract_shares(first: Figure, second: Figure) -> Figure:
    """Return the difference of two shares measured on independent samples.

    ``rows`` are those of the smaller sample. Source: Newcombe 1998, "Interval estimation for the
    difference between independent proportions", method 10.
    """
    shares = np.array([first.value, second.value])
    low, high = wilson(shares, np.array([first.rows, second.rows], np.float64))
    below, above = shares - low, high - shares
    gap = first.value - second.value
    return Figure(
        gap,
        gap - float(np.hypot(below[0], above[1])),
        gap + float(np.hypot(above[0], below[1])),
        min(first.rows, second.rows),
    )


def lowest_gaps(statistics: Sequence[Statistic], rows: int, seed: int) -> NDArray[np.float64]:
    """Return the low end of the interval of every pairwise difference (row minus column).

    All see the same draws of the rows, so the differences are paired.
    """
    named = {str(number): statistic for number, statistic in enumerate(statistics)}
    drawn = bootstrap(named, rows, seed)
    draws = np.stack([drawn[name] for name in named])
    return np.stack([np.quantile(one - draws, (1 - LEVEL) / 2, axis=1) for one in draws])


def bootstrap(
    statistics: Mapping[str, Statistic], rows: int, seed: int, draws: int | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return the values (draws,) of each statistic on the same samples of the rows.

    The samples are drawn batch by batch, so memory does not grow with their number.
    """
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in statistics}
    for weights in draw_batches(rows, seed, draws or DRAWS):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def draw_batches(rows: int, seed: int, draws: int) -> Iterator[Weights]:
    """Yield samples of the rows, batch by batch; small ones are kept for the next statistic."""
    if draws * rows > KEPT_WEIGHTS:
        generator = np.random.default_rng(seed)
        for _ in range(0, draws, DRAWS_AT_ONCE):
            yield draw_weights(generator, DRAWS_AT_ONCE, rows)
    else:
        for kept in _keep_batches(rows, seed, draws):
            yield kept.astype(np.float32)


@lru_cache(maxsize=1)
def _keep_batches(rows: int, seed: int, draws: int) -> tuple[NDArray[np.uint8], ...]:
    """Return samples of the rows in a byte each: no row is drawn 256 times."""
    generator, batches = np.random.default_rng(seed), range(0, draws, DRAWS_AT_ONCE)
    return tuple(draw_weights(generator, DRAWS_AT_ONCE, rows).astype(np.uint8) for _ in batches)


def draw_weights(generator: np.random.Generator, draws: int, rows: int) -> Weights:
    """Return how often each row appears (draws, rows) in samples drawn with replacement."""
    weights = np.empty((draws, rows), np.float32)
    for sample in weights:
        sample[:] = np.bincount(generator.integers(rows, size=rows), minlength=rows)
    return weights
