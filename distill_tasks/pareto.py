"""The Pareto front of accuracy against latency, and the choice of one point on it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Choice = Literal["most_accurate", "fastest", "knee"]

Points = NDArray[np.float64]
"""One row each: (accuracy, higher is better; latency in ms, lower is better)."""


def find_front(points: Points) -> NDArray[np.bool_]:
    """Return which points (points, 2) no other beats in one figure without losing the other.

    Equal points are all on the front.
    """
    import moocore

    on_front: NDArray[np.bool_] = moocore.is_nondominated(
        points, maximise=[True, False], keep_weakly=True
    )
    return on_front


def choose(points: Points, choice: Choice) -> int:
    """Return the number of the chosen point among those on the front."""
    accuracy, latency = points[:, 0], points[:, 1]
    if choice == "most_accurate":
        return int(np.lexsort((latency, -accuracy))[0])
    if choice == "fastest":
        return int(np.lexsort((-accuracy, latency))[0])
    return find_knee(points)


def find_knee(points: Points) -> int:
    """Return the point farthest above the line between the front's two ends.

    Accuracy is scaled to its range and latency to the range of its logarithm, since latency is
    felt in ratios. Source: Das 1999, "On characterizing the knee of the Pareto curve".
    """
    accuracy, latency = points[:, 0], np.log(points[:, 1])
    height = _scale(accuracy) - _scale(latency)
    return int(np.lexsort((latency, -height))[0])


def _scale(values: NDArray[np.float64]) -> NDArray[np.float64]:
    span = values.max() - values.min()
    scaled: NDArray[np.float64] = (values - values.min()) / (span if span > 0 else 1)
    return scaled
