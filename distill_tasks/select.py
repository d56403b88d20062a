"""Stages ``narrow`` and ``select``: the front, the chosen student, why each other one lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig, SelectConfig
from distill_tasks.evaluate import Examiner, Scores
from distill_tasks.intervals import lowest_gaps
from distill_tasks.label import LabelsReference
from distill_tasks.latency import Latency
from distill_tasks.measure import Latencies
from distill_tasks.pareto import Points, find_front, rank
from distill_tasks.prepare import CorpusReference
from distill_tasks.scorecard import Scorecard, quality_statistic
from distill_tasks.stage import stage
from distill_tasks.train import StudentReference
from distill_tasks.weighted_metrics import QUALITY_NAMES

Gaps = NDArray[np.float64]
"""Low ends of the paired intervals of quality, row's candidate less column's (both by number)."""


@dataclass(frozen=True)
class Candidate:
    """One point of the front: a student with its scorecard on validation and its latency."""

    student: StudentReference
    """The seed of it that is served."""
    validation: Scorecard
    """Over all its seeds."""
    latency: Latency

    @property
    def name(self) -> str:
        """The name of the student."""
        return self.student.candidate

    @property
    def retention(self) -> float:
        """Quality on validation as a share of the teacher's; agreement where gold is absent."""
        return self.validation.values.get("fidelity/retention", self.validation.quality.value)


@dataclass(frozen=True)
class Selection:
    """The candidates, those on the front, the chosen one, and the reason for every one."""

    candidates: list[Candidate]
    finalists: list[str]
    """Those with all seeds and controls, scored on held-out."""
    front: list[str]
    undecided: list[str]
    """Behind the front, where validation cannot rule out that they belong on it."""
    chosen: str | None
    """Name of the chosen candidate; None where no candidate meets the constraints."""
    reasons: dict[str, str]
    leaving: list[str]
    """Those that leave the front if their quality is at the low end of its interval."""
    joining: list[str]
    """Those that join the front if their quality is at the high end of its interval."""
    why_none: str = ""
    """Why nothing was chosen, naming the nearest candidate."""

    @property
    def choice(self) -> Candidate | None:
        """The chosen candidate."""
        return next((c for c in self.candidates if c.name == self.chosen), None)


@dataclass(frozen=True)
class Field:
    """All candidates as points, and what is sure of them."""

    candidates: list[Candidate]
    gaps: Gaps

    @property
    def points(self) -> Points:
        """Quality on validation and p95 latency of each candidate (candidates, 2)."""
        return np.array([(c.validation.quality.value, c.latency.p95_ms) for c in self.candidates])

    @property
    def front(self) -> list[int]:
        """The numbers of the candidates that no other one beats."""
        return [int(number) for number in np.flatnonzero(find_front(self.points))]

    def beaten_by(self, number: int) -> int | None:
        """Return who is as fast and, with its whole interval, as good; None where nobody is."""
        points = self.points
        for other in self.front:
            ahead = (points[other] != points[number]).any()
            as_fast = points[other][1] <= points[number][1]
            if ahead and as_fast and self.gaps[other, number] >= 0:
                return other
        return None

    @property
    def undecided(self) -> list[int]:
        """The numbers of the candidates behind the front that nobody surely beats."""
        behind = set(range(len(self.candidates))) - set(self.front)
        return [number for number in sorted(behind) if self.beaten_by(number) is None]

    def take(self, numbers: Sequence[int]) -> Field:
        """Return the field of some of its candidates."""
        return Field([self.candidates[n] for n in numbers], self.gaps[np.ix_(numbers, numbers)])

    def front_if(self, number: int, quality: float) -> bool:
        """Return whether a candidate would be on the front if it had this quality."""
        points = self.points
        points[number, 0] = quality
        return bool(find_front(points)[number])


def find_finalists(field: Field, config: SelectConfig, most: int) -> list[str]:
    """Return the candidates worth all seeds and held-out rows, best first.

    Those on the front come first, in the order in which the configuration would choose them, then
    those that validation cannot rule out, the better ones first. All meet the constraints, and
    one that misses them rules nobody out.
    """
    running = _allow(field, config)
    if not running.candidates:
        return []
    points, front = running.points, running.front
    ranked = [front[place] for place in rank(points[front], config.choose)]
    ranked += sorted(running.undecided, key=lambda number: (-points[number][0], points[number][1]))
    return [running.candidates[number].name for number in ranked[:most]]


def select_candidate(field: Field, finalists: Sequence[str], config: SelectConfig) -> Selection:
    """Draw the front on validation quality and p95 latency, and choose among the finalists."""
    candidates, allowed = field.candidates, _allow(field, config)
    running = [n for n, c in enumerate(allowed.candidates) if c.name in finalists]
    chosen, best, why_none = None, [], ""
    if running:
        points = allowed.points
        best = [running[n] for n in np.flatnonzero(find_front(points[running]))]
        # Ranked on the whole front, whose ends the knee is measured from.
        scope = sorted({*allowed.front, *best})
        ranked = [scope[place] for place in rank(points[scope], config.choose)]
        chosen = next(number for number in ranked if number in best)
    else:
        why_none = _nearest(candidates, finalists, config)
    reasons = {c.name: "; ".join(_excess(c, config)) for c in candidates}
    reasons |= {
        c.name: _explain(allowed, number, chosen, best, config)
        for number, c in enumerate(allowed.candidates)
    }
    ends = [(c.validation.quality.low, c.validation.quality.high) for c in candidates]
    front = field.front
    return Selection(
        candidates=candidates,
        finalists=list(finalists),
        front=[candidates[n].name for n in front],
        undecided=[candidates[n].name for n in field.undecided],
        chosen=None if chosen is None else allowed.candidates[chosen].name,
        reasons=reasons,
        leaving=[candidates[n].name for n in front if not field.front_if(n, ends[n][0])],
        joining=[
            c.name
            for n, c in enumerate(candidates)
            if n not in front and field.front_if(n, ends[n][1])
        ],
        why_none=why_none,
    )


@stage("narrow to {config.evaluate.finalists} finalists")
def narrow(
    config: DistillConfig,
    corpus: CorpusReference,
    labels: LabelsReference,
    students: list[StudentReference],
    scores: Scores,
    latencies: Latencies,
) -> list[str]:
    """Name the finalists among the students of the grid."""
    field = make_field(config, corpus, labels, students, scores, latencies)
    return find_finalists(field, config.select, config.evaluate.finalists)


@stage("select by {config.select.choose}")
def select(
    config: DistillConfig,
    corpus: CorpusReference,
    labels: LabelsReference,
    students: list[StudentReference],
    scores: Scores,
    latencies: Latencies,
    finalists: list[str],
) -> Selection:
    """Choose among the finalists."""
    field = make_field(config, corpus, labels, students, scores, latencies)
    return select_candidate(field, finalists, config.select)


def make_field(
    config: DistillConfig,
    corpus: CorpusReference,
    labels: LabelsReference,
    students: list[StudentReference],
    scores: Scores,
    latencies: Latencies,
) -> Field:
    """Compare all candidates with each other on the same validation rows."""
    examiner = Examiner(config, corpus.open(), labels.open(), scores.split)
    candidates, statistics = [], []
    for name, card in scores.candidates.items():
        seeds = [s for s in students if s.candidate == name and s.taught]
        served = next(s for s in seeds if s.served)
        candidates.append(Candidate(served, card, latencies.by_name[name]))
        asked = [examiner.ask(student) for student in seeds]
        statistics.append(quality_statistic(examiner.exam, asked))
    return Field(candidates, lowest_gaps(statistics, len(examiner.exam.split), config.seed))


def _explain(
    field: Field, number: int, chosen: int | None, best: list[int], config: SelectConfig
) -> str:
    """Return why a candidate was chosen or not, among those that meet the constraints."""
    if number == chosen:
        return f"chosen: {config.choose} of {len(best)} on the front"
    if chosen is None:
        return "was no finalist, and only a finalist may be chosen"
    if number in best or number in field.front:
        return _why_not_chosen(field, number, chosen, config)
    return _why_behind(field, number)


def _allow(field: Field, config: SelectConfig) -> Field:
    """Return the field of those that meet the constraints."""
    return field.take([n for n, c in enumerate(field.candidates) if not _excess(c, config)])


def _limits(candidate: Candidate, config: SelectConfig) -> list[tuple[str, float, float, float]]:
    """Return (constraint, found, limit, relative miss, positive where missed) for each one set."""
    limits = []
    if config.min_retention is not None:
        found, limit = candidate.retention, config.min_retention
        limits.append(("min_retention", found, limit, (limit - found) / limit))
    if config.max_p95_latency_ms is not None:
        found, limit = candidate.latency.p95_ms, config.max_p95_latency_ms
        limits.append(("max_p95_latency_ms", found, limit, (found - limit) / limit))
    if config.max_disk_mb is not None:
        found, limit = candidate.student.disk_mb, config.max_disk_mb
        limits.append(("max_disk_mb", found, limit, (found - limit) / limit))
    return limits


def _excess(candidate: Candidate, config: SelectConfig) -> list[str]:
    """Return a sentence for every constraint that a candidate misses."""
    return [
        f"misses {name} {limit:g}: {found:.4g}"
        for name, found, limit, miss in _limits(candidate, config)
        if miss > 0
    ]


def _nearest(candidates: list[Candidate], finalists: Sequence[str], config: SelectConfig) -> str:
    """Return that nobody may be chosen: with all its seeds, no finalist meets the constraints."""

    def worst_miss(candidate: Candidate) -> float:
        return max(miss for *_, miss in _limits(candidate, config))

    tested = [candidate for candidate in candidates if candidate.name in finalists]
    nearest, kind = min(tested or candidates, key=worst_miss), "finalist" if tested else "candidate"
    return (
        f"No {kind} meets the constraints; {nearest.name} is nearest and "
        f"{'; '.join(_excess(nearest, config))}. Nothing was promoted: relax `select`, or widen "
        "the grid."
    )


def _why_not_chosen(field: Field, number: int, chosen: int, config: SelectConfig) -> str:
    (quality, latency), (its_quality, its_latency) = field.points[number], field.points[chosen]
    points, ratio = 100 * (quality - its_quality), latency / its_latency
    return (
        f"on the front, but {config.choose} prefers {field.candidates[chosen].name}: against it "
        f"this one has {points:+.2f} points of validation {_metric(field)} and {ratio:.2g}× the "
        "p95 latency"
    )


def _why_behind(field: Field, number: int) -> str:
    points = field.points
    quality, latency = points[number]
    sure = field.beaten_by(number)
    ahead = [n for n in field.front if points[n][0] >= quality and points[n][1] <= latency]
    by = ahead[0] if sure is None else sure
    comparison = (
        f"validation {_metric(field)} {points[by][0]:.4f} against {quality:.4f} at p95 "
        f"{points[by][1]:.3g} against {latency:.3g} ms"
    )
    name = field.candidates[by].name
    if sure is not None:
        return f"dominated by {name}: {comparison}"
    return (
        f"behind {name}: {comparison}; validation cannot rule out that this one is better, by up "
        f"to {-100 * field.gaps[by, number]:.2f} points"
    )


def _metric(field: Field) -> str:
    card = field.candidates[0].validation
    known = f"quality/{card.metric}" in card.figures
    return QUALITY_NAMES[card.metric] if known else "agreement"
