"""A challenger beside the champion on the same rows: figures, classes, and the rows that flip."""

from __future__ import annotations

from dataclasses import dataclass

from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.statistics import Quality
from distill_tasks.scoring.verdicts import Verdict


@dataclass(frozen=True)
class ComparedModel:
    """How good and how fast one of the two models is."""

    uri: str
    version: int
    quality: Figure
    macro_f1: Figure
    p50_ms: float
    p95_ms: float
    p95_interval_ms: tuple[float, float]


@dataclass(frozen=True)
class ComparedClass:
    """One class: the figures of challenger and champion, in this order."""

    name: str
    rows: int
    precision: tuple[float | None, float | None]
    """None of a model that never predicts the class."""
    recall: tuple[float | None, float | None]
    """None where no row is of the class; so is F1."""
    f1: tuple[float | None, float | None]

    @property
    def change(self) -> float | None:
        """F1 of the challenger minus the champion's."""
        ours, theirs = self.f1
        return None if ours is None or theirs is None else ours - theirs


@dataclass(frozen=True)
class Flip:
    """A row that exactly one of the two models gets right."""

    row: int
    """Its number in the split, from 0."""
    text: str
    gold: str
    """Its labels, joined by ``|`` if there are several."""
    answers: tuple[str, str]
    """Those of challenger and champion."""
    confidences: tuple[float, float]
    newly_wrong: bool
    """Whether the champion is right and the challenger is not."""


@dataclass(frozen=True)
class ModelComparison:
    """A challenger beside the champion, compared on the same rows and timed in the same run."""

    promote: bool
    reason: str
    """The answer of the gate, with its reason."""
    verdict: Verdict | None
    metric: Quality
    difference: Figure
    """The metric of the challenger minus that of the champion."""
    challenger: ComparedModel
    champion: ComparedModel
    agreement: float
    """Share of the rows that get the same labels from both."""
    rows: int
    timed_on: str
    classes: list[ComparedClass]
    """Those with rows or answers, the largest loss of F1 first."""
    flips: list[Flip]
    """Newly wrong ones first, among them those that the wrong model is surest of."""
    look: str = ""
    """Which look at these rows it was, and when fresh rows are due."""

    @property
    def newly_wrong(self) -> int:
        """The number of rows that only the champion gets right."""
        return sum(flip.newly_wrong for flip in self.flips)

    @property
    def newly_right(self) -> int:
        """The number of rows that only the challenger gets right."""
        return len(self.flips) - self.newly_wrong
