"""Where the names of the points of the front stand, so that none is printed over another thing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill_tasks.reporting.points import Point

LETTER, HEIGHT, LEVEL, GAP = 0.0095, 0.045, 0.05, 0.008
"""Size of a letter, a name and a level, and a name's distance from its point, in shares of axes."""
LEVELS = (0, 1, -1, 2, -2)
SIDES = (1, -1)
OVER_NAME, OVER_POINT, OVER_BAR, OUTSIDE = 20.0, 6.0, 2.0, 30.0
"""What a place costs for each other name, point or bar that it covers, and beyond the axes."""


@dataclass(frozen=True)
class Place:
    """Where a name stands beside its point."""

    side: int = 1
    """1 on the right of its point, -1 on the left."""
    level: int = 0
    """How many lines above it; below zero under it."""


@dataclass(frozen=True)
class Box:
    """A rectangle in shares of the axes."""

    left: float
    right: float
    low: float
    high: float

    def touches(self, other: Box) -> bool:
        """Return whether two rectangles have a part in common."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.high <= other.low or other.high <= self.low)


def place_names(points: Sequence[Point], left: float, right: float) -> dict[str, Place]:
    """Return the best place for each point's name, the fastest first; axes are logarithmic across.

    ``left`` and ``right`` are the ends of the latency axis in milliseconds.
    """
    axes = _Axes(points, left, right)
    found: dict[str, Place] = {}
    taken: list[Box] = []
    for point in sorted(points, key=lambda point: point.latency_ms):
        places = [Place(side, level) for level, side in product(LEVELS, SIDES)]
        best = min(places, key=lambda place: axes.cost(point, place, taken))
        found[point.name] = best
        taken.append(axes.box(point, best))
    return found


class _Axes:
    """The things that are drawn, in shares of the axes."""

    def __init__(self, points: Sequence[Point], left: float, right: float) -> None:
        ends = [end for point in points for end in (point.quality.low, point.quality.high)]
        self.low, self.span = min(ends), (max(ends) - min(ends)) or 1.0
        self.left, self.width = math.log(left), math.log(right / left)
        self.bars = {p.name: self._draw(p, p.quality.low, p.quality.high) for p in points}
        self.marks = [
            self._draw(point, figure.value - 0.02 * self.span, figure.value + 0.02 * self.span)
            for point in points
            for figure in (point.quality, point.held_out)
            if figure is not None
        ]

    def _draw(self, point: Point, low: float, high: float) -> Box:
        middle, half = (math.log(point.latency_ms) - self.left) / self.width, GAP / 2
        ends = ((end - self.low) / self.span for end in (low, high))
        return Box(middle - half, middle + half, *ends)

    def box(self, point: Point, place: Place) -> Box:
        """Return where a name would stand."""
        bar = self.bars[point.name]
        middle = (point.quality.value - self.low) / self.span + LEVEL * place.level
        length, start = LETTER * len(point.name), (bar.left + bar.right) / 2 + place.side * GAP
        across = sorted((start, start + place.side * length))
        return Box(across[0], across[1], middle - HEIGHT / 2, middle + HEIGHT / 2)

    def cost(self, point: Point, place: Place, taken: Sequence[Box]) -> float:
        """Return how bad a place is for a name, given the names that stand already."""
        box = self.box(point, place)
        bars = [bar for name, bar in self.bars.items() if name != point.name]
        covered = {OVER_NAME: taken, OVER_POINT: self.marks, OVER_BAR: bars}
        cost = sum(price * sum(map(box.touches, things)) for price, things in covered.items())
        outside = box.left < 0 or box.right > 1
        return cost + OUTSIDE * outside + 0.5 * abs(place.level) + 0.2 * (place.side < 0)
