"""Figures with 95 % intervals, from one bootstrap that every metric shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
"""How often each row was drawn: (draws, rows)."""

Statistic = Callable[[Weights], NDArray[np.float64]]
"""A metric as a function of row weights (draws, rows), one value (draws,) each."""

DRAWS = 1000
DRAWS_AT_ONCE = 100
LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """A measured value with the ends of its interval and the number of rows behind it."""

    value: float
    low: float
    high: float
    rows: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def estimate(statistics: dict[str, Statistic], rows: int, seed: int) -> dict[str, Figure]:
    """Return each statistic on all rows with its percentile bootstrap interval.

    A draw of rows repeats some of them, which biases statistics such as the calibration error;
    the mean bias of the draws is taken off their quantiles. All statistics see the same draws, so
    their intervals are comparable. Memory does not grow with the number of draws. Source: Efron
    and Tibshirani 1993, "An Introduction to the Bootstrap", sections 10.2 and 13.3.
    """
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in statistics}
    for _ in range(0, DRAWS, DRAWS_AT_ONCE):
        weights = draw_weights(generator, DRAWS_AT_ONCE, rows)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    once = np.ones((1, rows), np.float32)
    figures = {}
    for name, statistic in statistics.items():
        value, draws = float(statistic(once)[0]), np.concatenate(drawn[name])
        bias = draws.mean() - value
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - bias
        figures[name] = Figure(value, float(low), float(high), rows)
    return figures


def draw_weights(generator: np.random.Generator, draws: int, rows: int) -> Weights:
    """Return how often each row appears (draws, rows) in samples drawn with replacement."""
    picks = generator.integers(rows, size=(draws, rows))
    flat = picks + rows * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * rows).reshape(draws, rows).astype(np.float32)
