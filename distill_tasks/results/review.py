"""The review of a registered version: its comparison with the champion, and what followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.looks import Look
from distill_tasks.scoring.statistics import QUALITY_NAMES, Quality
from distill_tasks.scoring.verdicts import Verdict

State = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True)
class Standing:
    """How good and how fast a registered model is, beside the other one in the same run."""

    quality: float
    macro_f1: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class GateReport:
    """Whether a version may become champion, and the comparison behind that."""

    version: int
    compared_to: int | None
    """The champion that it was compared to; None if there was none."""
    basis: str
    """Digest of the rows, the rule and the code that the verdict depends on."""
    promote: bool
    reason: str
    verdict: Verdict | None = None
    difference: Figure | None = None
    metric: Quality = "accuracy"
    """The metric that ``difference`` and the quality of both are measured by."""
    challenger: Standing | None = None
    champion: Standing | None = None
    look: Look | None = None
    """Which look at the rows this comparison was; None where nothing was compared."""
    reused: bool = False

    @property
    def state(self) -> State:
        """The outcome in one word, as the version's tag `gate` says it."""
        if self.promote:
            return "passed"
        return "inconclusive" if self.verdict is Verdict.INCONCLUSIVE else "failed"

    @property
    def brief(self) -> str:
        """The reason in a few words: the difference in quality where two models were compared."""
        if self.difference is None:
            return self.reason
        change = "gains" if self.difference.value >= 0 else "loses"
        points = f"{change} {100 * abs(self.difference.value):.1f} points"
        against = f"of {QUALITY_NAMES[self.metric]} against version {self.compared_to}"
        return f"{points} {against} ({self.verdict})"


@dataclass(frozen=True)
class Promotion:
    """The change of champion that happened, or would happen."""

    model: str
    champion: int | None
    previous: int | None
    moved: bool
    reason: str
    reused: bool
    would_move: bool = False
    """Whether this was a dry run of a move."""
    waits: bool = False
    """Whether the version passed the gate, and a person has to approve it."""
    idle: bool = False
    """Whether there was no version to judge."""


@dataclass(frozen=True)
class Review:
    """What the gate said of a version, and whether the version became champion."""

    promotion: Promotion
    gate: GateReport | None = None
    """None where an interrupted change of champion was completed, and no version judged."""

    @property
    def name(self) -> str:
        """The outcome in a word or two."""
        if self.promotion.idle:
            return "Nothing to do"
        if self.promotion.moved:
            return "Promoted"
        if self.promotion.would_move:
            return "Would promote"
        if self.promotion.waits:
            return "Waiting for review"
        return "Champion stays" if self.promotion.reused else "Kept as challenger"

    def __str__(self) -> str:
        """Return the outcome in a sentence without a full stop."""
        champion, reason = self.promotion.champion, self.promotion.reason
        if self.promotion.idle:
            return reason
        if self.gate is None:
            return f"version {champion} is champion: {reason}"
        if self.promotion.reused:
            return f"version {champion} stays champion: nothing better came out"
        done = {
            "Promoted": "promoted to champion",
            "Would promote": "would be promoted to champion",
            "Waiting for review": "waits for a person's review",
            "Kept as challenger": "kept as challenger",
        }
        return f"version {self.gate.version} {done[self.name]}: {self.gate.brief}"
