"""The candidates, all of them compared with each other, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distill_tasks.measuring.footprint import Footprint
from distill_tasks.measuring.latency import Latency, tie
from distill_tasks.results.references import StudentReference
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.pareto import FrontAxis, Points, front_among
from distill_tasks.scoring.parity import Parity
from distill_tasks.scoring.promises import PromiseTest
from distill_tasks.scoring.scorecard import Scorecard

Values = NDArray[np.float64]
Gaps = NDArray[np.float64]
"""Low ends of the paired intervals of quality, row's candidate less column's (both by number)."""

CLEAR_SHARE = 0.6
"""A choice that comes out alike in fewer redraws than this share is a toss-up."""
NARROW = 0.01
"""Two candidates are as good as each other if their difference in quality is within this."""


@dataclass(frozen=True)
class Candidate:
    """What may be served, how good it is, and what it costs."""

    student: StudentReference
    """The seed of it that is served."""
    validation: Scorecard
    """Over all its seeds."""
    latency: Latency
    footprint: Footprint
    parity: Parity | None
    """Against the torch model that it was exported from; None where it is that itself."""
    rejected: str = ""
    """Why parity does not let it compete."""
    powered: Figure | None = None
    """Its quality on validation, made surer by rows that the teacher alone has labelled."""
    promises: tuple[PromiseTest, ...] = ()
    """What validation says of the promises."""

    @property
    def name(self) -> str:
        """The name of the student and, where it was exported, of the variant."""
        return self.student.candidate

    @property
    def quality(self) -> Figure:
        """What it is compared by: its quality on validation, as surely as it is known."""
        return self.powered or self.validation.quality

    @property
    def margin(self) -> float:
        """The smallest margin of the promises, by the estimate on validation."""
        return min((test.margin for test in self.promises), default=0.0)

    def read(self, objective: FrontAxis) -> float:
        """Return its figure on one further axis of the front."""
        if objective == "resident_mb":
            return self.footprint.resident_mb
        return float(getattr(self.student, objective))


@dataclass(frozen=True)
class Stability:
    """How often each candidate comes first on redraws of validation."""

    shares: dict[str, float]
    """The share of redraws in which each candidate comes first, the most frequent one first."""
    rows_to_settle: int | None
    """Validation rows that would tell the first two apart; None where they are about equal."""

    @property
    def toss_up(self) -> tuple[str, str] | None:
        """The two candidates that the choice is a toss-up between, if it is one."""
        names = list(self.shares)
        is_clear = len(names) < 2 or self.shares[names[0]] >= CLEAR_SHARE
        return None if is_clear else (names[0], names[1])


@dataclass(frozen=True)
class Selection:
    """The candidates, those on the front, the chosen one, and the reason for every one."""

    candidates: list[Candidate]
    finalists: list[str]
    """The students with all seeds and controls, scored on held-out with all their variants."""
    leading: list[str]
    """Of each finalist the candidate that would be served, in the order of their tests."""
    barred: list[str]
    """Those of them that miss a limit or surely break a promise, whatever held-out says."""
    front: list[str]
    undecided: list[str]
    """Candidates behind the front that may belong on it: no other one is surely as good."""
    chosen: str | None
    """Name of the chosen candidate; None where no candidate meets the constraints."""
    reasons: dict[str, str]
    leaving: list[str]
    """Those that leave the front if their quality is at the low end of its interval."""
    joining: list[str]
    """Those that join the front if their quality is at the high end of its interval."""
    why_none: str = ""
    """Why nothing was chosen, naming the nearest candidate."""
    ties: dict[str, list[str]] = field(default_factory=dict)
    """Candidates that are as good and as fast as one of those leading, by its name."""
    stability: Stability | None = None
    """How often the same candidate would come first; None where nothing could be redrawn."""

    @property
    def choice(self) -> Candidate | None:
        """The chosen candidate."""
        return next((c for c in self.candidates if c.name == self.chosen), None)


@dataclass(frozen=True)
class Redraws:
    """Figures of the candidates on bootstrap redraws of validation."""

    qualities: NDArray[np.float64]
    """(draws, candidates)"""
    margins: NDArray[np.float64]
    """The smallest margin of the promises (draws, candidates)."""

    def take(self, numbers: Sequence[int]) -> Redraws:
        """Return the redraws of some of the candidates, by their numbers."""
        return Redraws(self.qualities[:, numbers], self.margins[:, numbers])


@dataclass(frozen=True)
class Field:
    """All candidates, and the differences in quality between them that validation is sure of."""

    candidates: list[Candidate]
    gaps: Gaps
    band: float
    """Noise of p95 as a share of it: latencies within it are ties."""
    objectives: tuple[FrontAxis, ...]
    redraws: Redraws | None = None

    @cached_property
    def points(self) -> Points:
        """Quality on validation, p95 latency, then the objectives (candidates, figures)."""
        latency = tie(np.array([c.latency.p95_ms for c in self.candidates]), self.band)
        return np.array(
            [
                (c.quality.value, tied, *(c.read(o) for o in self.objectives))
                for c, tied in zip(self.candidates, latency, strict=True)
            ]
        )

    @property
    def margins(self) -> list[float]:
        """The smallest margin of each candidate's promises."""
        return [candidate.margin for candidate in self.candidates]

    @cached_property
    def front(self) -> list[int]:
        """The numbers of the candidates that no other one beats."""
        return front_among(self.points, range(len(self.candidates)))

    def beaten_by(self, number: int) -> int | None:
        """Return a candidate on the front that is surely as good, at no more cost; None if none is.

        Surely: the whole 95 % interval of the difference in quality is at or above zero. Cost is
        p95 latency and the further objectives.
        """
        points = self.points
        for other in self.front:
            ahead = (points[other] != points[number]).any()
            as_cheap = (points[other][1:] <= points[number][1:]).all()
            if ahead and as_cheap and self.gaps[other, number] >= 0:
                return other
        return None

    @property
    def undecided(self) -> list[int]:
        """The numbers of the candidates behind the front that none on it surely beats."""
        behind = set(range(len(self.candidates))) - set(self.front)
        return [number for number in sorted(behind) if self.beaten_by(number) is None]

    def are_ties(self, one: int, other: int) -> bool:
        """Return whether two candidates are as fast, and surely as good, as each other.

        That is, their p95 latencies are within the noise, and the interval of their difference in
        quality holds zero and is narrow.
        """
        latencies = self.points[:, 1]
        ends = self.gaps[one, other], -self.gaps[other, one]
        narrow = ends[0] >= -NARROW and ends[1] <= NARROW
        return bool(latencies[one] == latencies[other] and narrow and ends[0] <= 0 <= ends[1])

    def take(self, numbers: Sequence[int]) -> Field:
        """Return the field of some of the candidates, by their numbers."""
        return replace(
            self,
            candidates=[self.candidates[number] for number in numbers],
            gaps=self.gaps[np.ix_(numbers, numbers)],
            redraws=self.redraws and self.redraws.take(numbers),
        )

    def front_if(self, number: int, quality: float) -> bool:
        """Return whether a candidate would be on the front if it had this quality."""
        points = self.points.copy()
        points[number, 0] = quality
        return number in front_among(points, range(len(points)))
