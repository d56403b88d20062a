"""The learning curve: quality by the number of transfer rows."""

from __future__ import annotations

from dataclasses import dataclass

from distill_tasks.scoring.intervals import Figure


@dataclass(frozen=True)
class LearningPoint:
    """The cheapest student with some of the transfer rows, scored on held-out."""

    transfer_rows: int
    quality: Figure


@dataclass(frozen=True)
class LearningCurve:
    """Quality by the number of transfer rows; no points if there are too few to halve."""

    student: str
    points: list[LearningPoint]
    last_gain: Figure | None
    """The gain in quality of the last doubling of the transfer rows."""
    reused: bool

    @property
    def meaning(self) -> str:
        """What more transfer rows would likely bring, in one sentence."""
        gain = self.last_gain
        if gain is None:
            return "There are too few transfer rows to draw a learning curve."
        before, last = self.points[-2].transfer_rows, self.points[-1].transfer_rows
        bought = (
            f"Going from {before:,} to {last:,} transfer rows bought {self.student} {gain.points}"
        )
        if gain.low > 0:
            return f"{bought}: twice as much text would buy up to about as much again."
        if gain.high <= 0:
            return f"{bought}: more text of this kind buys nothing."
        return f"{bought}: no clear gain, so expect little from more text of this kind."
