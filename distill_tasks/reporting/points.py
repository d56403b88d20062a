"""The points of the front's picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from distill_tasks.scoring.intervals import Figure

Role = Literal["chosen", "front", "other", "teacher"]


@dataclass(frozen=True)
class Point:
    """One model on the picture."""

    name: str
    quality: Figure
    """On validation, where the front is drawn."""
    held_out: Figure | None
    """On held-out, which only finalists and the teacher see."""
    latency_ms: float
    role: Role
    note: str
    """What the reader sees on pointing at it, in the HTML of plotly's labels."""

    @property
    def percent(self) -> float:
        """Quality in percent."""
        return 100 * self.quality.value

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval goes below and above the quality, in percent."""
        return self.percent - 100 * self.quality.low, 100 * self.quality.high - self.percent
