"""The results of stages: scores, times, exports, stopped students, verdicts."""

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


@dataclass(frozen=True)
class Comparison:
    """One pair of temperature and α, and how good the cheapest student became with it."""

    temperature: float
    alpha: float
    loss: float
    """On validation: the NLL of gold, or the divergence from the teacher without gold."""
    quality: float
    """The configured metric on validation."""


@dataclass(frozen=True)
class Tuning:
    """Temperature and α of the run, and how they were chosen."""

    objective: Annotated[
        Objective, Field(validation_alias="blend", serialization_alias="blend")
    ]  # its name in stores and MLflow
    reason: str
    compared: list[Comparison]
    reused: bool


@dataclass(frozen=True)
class Stop:
    """A student that successive halving stopped."""

    name: str
    share: float
    """Of its training, what it had."""
    better: str
    """The name of the student that beats it."""
    gap: float
    """The low end of the paired interval of their difference in quality, in points."""
    saved_s: float
    """Estimate of the training time that it was spared, in seconds."""

    @property
    def reason(self) -> str:
        """A sentence that says why it was stopped."""
        return (
            f"stopped after {100 * self.share:.3g} % of its training: {self.better}, no slower, "
            f"was at least {self.gap:.2f} points better on validation"
        )


@dataclass(frozen=True)
class Halving:
    """The students that successive halving stopped, and the time it saved."""

    students: int
    """That could be stopped."""
    stops: list[Stop]
    whole_s: float
    """Estimate of the time that training all of them would take, in seconds."""
    reused: bool

    @property
    def reasons(self) -> dict[str, str]:
        """The reason why each stopped student is no candidate, by its name."""
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
    """The verdict on a student against the same student without its teacher, on held-out rows."""

    verdict: Verdict
    reason: str
    """The verdict as a sentence."""
    comparison: PairedComparison | None
    """The comparison, with Holm's correction over all finalists; None if there was none."""
    distillation_ratio: Figure | None
    """(student − control) / (teacher − control); None unless the teacher is clearly better."""
    teacher_lead: Figure | None
    """The quality of the teacher minus that of the control."""
    flags: list[str]
    """Caveats about the verdict."""

    @property
    def difference(self) -> Figure | None:
        """The quality of the student minus that of the same student without its teacher."""
        return self.comparison.difference if self.comparison else None


@dataclass(frozen=True)
class Proof:
    """The verdict on every finalist, by the name of its leading candidate."""

    judgements: dict[str, Judgement]
    panels: dict[str, Panel]
    parities: dict[str, Parity]
    """The comparison of every variant with its reference on held-out, by candidate."""
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

    Variants have a scorecard for the served seed only.
    """
    candidates: dict[str, Scorecard]
    """The scorecard of each student and each variant over its seeds."""
    on_gold: dict[str, Scorecard]
    """The scorecard of each student's control over its seeds, by the student's name."""
    reused: bool


@dataclass(frozen=True)
class Ablation:
    """A student and the same one trained without synthetic rows, both on real held-out rows."""

    student: str
    """As trained, also where one of its variants was chosen."""
    rows: int
    """The synthetic rows."""
    as_intended: int
    """How many of them the teacher gives the class that they were written for."""
    whole: Scorecard
    """The student's, over its seeds."""
    ablated: Scorecard
    """That of the same student without them, over the same seeds."""
    comparison: PairedComparison | None
    """The first less the second; None where held-out has no gold."""
    reused: bool


@dataclass(frozen=True)
class Searched:
    """The trials to train: one of each student that is still in the run."""

    trials: list[Trial]
    """The trials of the grid that were not stopped, then those that the search added."""
    reused: bool


@dataclass(frozen=True)
class Latencies:
    """The latency of every model by name; a teacher without weights here has none."""

    by_name: dict[str, Latency]
    footprints: dict[str, Footprint]
    """The footprint of each student, by name."""
    versions: dict[str, str]
    """The versions of the packages that were used for serving."""
    reused: bool

    @property
    def band(self) -> float:
        """The noise of this run as a share of p95: within it, latencies are ties."""
        return find_band(list(self.by_name.values()))
