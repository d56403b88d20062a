"""What stages find: scores, times, exports, who was stopped, verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distill_tasks.measuring.footprint import Footprint
from distill_tasks.measuring.latency import Latency, find_band
from distill_tasks.scoring.fidelity import Panel
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.parity import Parity
from distill_tasks.scoring.production import ProductionCheck
from distill_tasks.scoring.promises import PromiseTest
from distill_tasks.scoring.scorecard import Scorecard
from distill_tasks.scoring.verdicts import PairedComparison, Verdict
from distill_tasks.training.objective import Objective

if TYPE_CHECKING:
    from distill_tasks.results.grid import Trial

TEACHER = "teacher"
"""The teacher's name among the models of a run."""


@dataclass(frozen=True)
class Comparison:
    """One pair of temperature and α, and how far the cheapest student came with it."""

    temperature: float
    alpha: float
    loss: float
    """On validation: the NLL of gold, or the divergence from the teacher where gold is absent."""
    quality: float
    """The metric that counts, on validation."""


@dataclass(frozen=True)
class Tuning:
    """Temperature and α of the run, and why these."""

    objective: Annotated[
        Objective, Field(validation_alias="blend", serialization_alias="blend")
    ]  # its name in stores and MLflow
    reason: str
    compared: list[Comparison]
    reused: bool


@dataclass(frozen=True)
class Stop:
    """A student that is trained no further."""

    name: str
    share: float
    """Of its training, what it had."""
    better: str
    """Who beats it."""
    gap: float
    """By which validation quality at least (the low end of the paired interval), in points."""
    saved_s: float
    """Training it was spared, in seconds, at the pace it had."""

    @property
    def reason(self) -> str:
        """Why it was stopped, in words."""
        return (
            f"stopped after {100 * self.share:.3g} % of its training: {self.better}, no slower, "
            f"was at least {self.gap:.2f} points better on validation"
        )


@dataclass(frozen=True)
class Halving:
    """Who was stopped on the way, and what that saved."""

    students: int
    """That could be stopped."""
    stops: list[Stop]
    whole_s: float
    """Estimate of what training all of them would take, in seconds, at the pace they had."""
    reused: bool

    @property
    def reasons(self) -> dict[str, str]:
        """Why each stopped student is no candidate, by its name."""
        return {stop.name: stop.reason for stop in self.stops}

    def remaining(self, trials: list[Trial]) -> list[Trial]:
        """Return the trials of students that were not stopped."""
        return [trial for trial in trials if trial.student.name not in self.reasons]

    @property
    def saved_share(self) -> float:
        """Share of the training time that was saved."""
        saved = sum(stop.saved_s for stop in self.stops)
        return saved / self.whole_s if self.whole_s else 0.0


@dataclass(frozen=True)
class Judgement:
    """What held-out rows say of a student against the same student without its teacher."""

    verdict: Verdict
    reason: str
    """One sentence for people."""
    comparison: PairedComparison | None
    """With p corrected after Holm over all finalists; None where nothing could be compared."""
    distillation_ratio: Figure | None
    """(student − control) / (teacher − control); None where the teacher is no clear winner."""
    teacher_lead: Figure | None
    """Teacher less control."""
    flags: list[str]
    """What should be known before the verdict is relied on."""

    @property
    def difference(self) -> Figure | None:
        """Quality of the student less that of the same student without its teacher."""
        return self.comparison.difference if self.comparison else None


@dataclass(frozen=True)
class Proof:
    """What is proven of every finalist, by the name of its leading candidate."""

    judgements: dict[str, Judgement]
    panels: dict[str, Panel]
    parities: dict[str, Parity]
    """Of every variant against its reference, on held-out, by candidate."""
    production: dict[str, ProductionCheck]
    promises: dict[str, list[PromiseTest]]
    """What held-out says of every promise, by the candidate, in the order of their tests."""
    against_words: dict[str, PairedComparison]
    """Its quality less that of words on gold; empty where there is no gold to learn them from."""
    reused: bool


@dataclass(frozen=True)
class Scores:
    """The scorecards on one split."""

    split: str
    models: dict[str, Scorecard]
    """By name: the teacher, the controls without a student, every trained student and variant.

    Of a variant only the seed that is served stands here.
    """
    candidates: dict[str, Scorecard]
    """Each student and each variant over its seeds."""
    on_gold: dict[str, Scorecard]
    """Each student's control over its seeds, by the student's name."""
    reused: bool


@dataclass(frozen=True)
class Searched:
    """What is to be trained: one trial of each student that is still in the run."""

    trials: list[Trial]
    """Those of the grid that were not stopped, then those that the search added."""
    reused: bool


@dataclass(frozen=True)
class Latencies:
    """What every model takes, by name; the teacher is absent where it has no weights here."""

    by_name: dict[str, Latency]
    footprints: dict[str, Footprint]
    """Of the students alone."""
    versions: dict[str, str]
    """Of the packages that answered."""
    reused: bool

    @property
    def band(self) -> float:
        """The noise of this run as a share of p95: within it, latencies are ties."""
        return find_band(list(self.by_name.values()))
