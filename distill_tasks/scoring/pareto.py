"""The Pareto front of accuracy against latency and more, and the choice of one point on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Choice = Literal["most_accurate", "fastest", "knee", "budget"]
FrontAxis = Literal["parameters", "disk_mb", "resident_mb"]

Points = NDArray[np.float64]
"""One row each: (accuracy, higher is better; latency in ms and further costs, lower is better)."""


def find_front(points: Points) -> NDArray[np.bool_]:
    """Return which points (points, figures) are not dominated by another one.

    Equal points are all on the front.
    """
    import moocore

    on_front: NDArray[np.bool_] = moocore.is_nondominated(
        points, maximise=[True] + [False] * (points.shape[1] - 1), keep_weakly=True
    )
    return on_front


def front_among(points: Points, numbers: Sequence[int]) -> list[int]:
    """Return those of some points, by their numbers, that no other of them dominates."""
    if not numbers:
        return []
    on_front = find_front(points[list(numbers)])
    return [number for number, is_on in zip(numbers, on_front, strict=True) if is_on]


def rank(points: Points, choice: Choice) -> list[int]:
    """Return the numbers of the points of a front, the one that is chosen first.

    The knee is the point farthest above the line between the front's two ends. Accuracy is scaled
    to its range and latency to the range of its logarithm, since latency is felt in ratios.
    Source: Das 1999, "On characterizing the knee of the Pareto curve".
    """
    accuracy, latency = points[:, 0], points[:, 1]
    if choice in ("most_accurate", "budget"):
        keys = (latency, -accuracy)
    elif choice == "fastest":
        keys = (-accuracy, latency)
    else:
        keys = (latency, _scale(np.log(latency)) - _scale(accuracy))
    return [int(number) for number in np.lexsort(keys)]


def _scale(values: NDArray[np.float64]) -> NDArray[np.float64]:
    span = values.max() - values.min()
    scaled: NDArray[np.float64] = (values - values.min()) / (span if span > 0 else 1)
    return scaled
