"""Stage ``select``: the Pareto front, the chosen student, and why each other one lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill_tasks.config import DistillConfig, SelectConfig
from distill_tasks.evaluate import Scores
from distill_tasks.latency import Latency
from distill_tasks.measure import Latencies
from distill_tasks.pareto import Points, choose, find_front
from distill_tasks.scorecard import Scorecard
from distill_tasks.stage import stage
from distill_tasks.train import StudentReference


@dataclass(frozen=True)
class Candidate:
    """One point of the front: a student with its scorecards and latency."""

    name: str
    digest: str
    folder: Path
    parameters: int
    disk_mb: float
    seconds: float
    validation: Scorecard
    held_out: Scorecard
    latency: Latency

    @property
    def retention(self) -> float:
        """Accuracy on validation as a share of the teacher's; agreement where gold is absent."""
        return self.validation.values.get("fidelity/retention", self.validation.accuracy.value)


@dataclass(frozen=True)
class Selection:
    """The candidates, those on the front, the chosen one, and the reason for every one."""

    candidates: list[Candidate]
    front: list[str]
    chosen: str | None
    """Name of the chosen candidate; None where no candidate meets the constraints."""
    reasons: dict[str, str]
    why_none: str = ""
    """Why nothing was chosen, naming the nearest candidate."""

    @property
    def choice(self) -> Candidate | None:
        """The chosen candidate."""
        return next((c for c in self.candidates if c.name == self.chosen), None)


def select_candidate(candidates: list[Candidate], config: SelectConfig) -> Selection:
    """Draw the front on validation accuracy and p95 latency, and choose within the constraints."""
    points = np.array([(c.validation.accuracy.value, c.latency.p95_ms) for c in candidates])
    on_front = find_front(points)
    front = [c.name for c, on in zip(candidates, on_front, strict=True) if on]
    excess = [_excess(candidate, config) for candidate in candidates]
    allowed = [number for number, missed in enumerate(excess) if not missed]
    reasons = {c.name: "; ".join(missed) for c, missed in zip(candidates, excess, strict=True)}
    if not allowed:
        return Selection(candidates, front, None, reasons, _nearest(candidates, config))
    within = find_front(points[allowed])
    best = [number for number, on in zip(allowed, within, strict=True) if on]
    chosen = best[choose(points[best], config.choose)]
    for number in allowed:
        candidate = candidates[number]
        if number == chosen:
            reasons[candidate.name] = f"chosen: {config.choose} of {len(best)} on the front"
        elif number in best:
            reasons[candidate.name] = _why_not_chosen(candidate, candidates[chosen], config)
        else:
            reasons[candidate.name] = _why_dominated(number, points, best, candidates)
    return Selection(candidates, front, candidates[chosen].name, reasons)


@stage("select by {config.select.choose}")
def select(
    config: DistillConfig,
    students: list[StudentReference],
    scores: Scores,
    latencies: Latencies,
) -> Selection:
    """Choose among the students."""
    candidates = [
        Candidate(
            name=student.name,
            digest=student.digest,
            folder=student.folder,
            parameters=student.parameters,
            disk_mb=student.disk_mb,
            seconds=student.seconds,
            validation=scores.cards[student.name]["validation"],
            held_out=scores.cards[student.name]["held_out"],
            latency=latencies.by_name[student.name],
        )
        for student in students
    ]
    return select_candidate(candidates, config.select)


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
        found, limit = candidate.disk_mb, config.max_disk_mb
        limits.append(("max_disk_mb", found, limit, (found - limit) / limit))
    return limits


def _excess(candidate: Candidate, config: SelectConfig) -> list[str]:
    """Return a sentence for every constraint that a candidate misses."""
    return [
        f"misses {name} {limit:g}: {found:.4g}"
        for name, found, limit, miss in _limits(candidate, config)
        if miss > 0
    ]


def _nearest(candidates: list[Candidate], config: SelectConfig) -> str:
    def worst_miss(candidate: Candidate) -> float:
        return max(miss for *_, miss in _limits(candidate, config))

    nearest = min(candidates, key=worst_miss)
    return (
        f"No candidate meets the constraints; {nearest.name} is nearest and "
        f"{'; '.join(_excess(nearest, config))}. Nothing was promoted: relax `select`, or widen "
        "the grid."
    )


def _why_not_chosen(candidate: Candidate, chosen: Candidate, config: SelectConfig) -> str:
    points = 100 * (candidate.validation.accuracy.value - chosen.validation.accuracy.value)
    ratio = candidate.latency.p95_ms / chosen.latency.p95_ms
    return (
        f"on the front, but {config.choose} prefers {chosen.name}: against it this one has "
        f"{points:+.2f} points of validation accuracy and {ratio:.2g}× the p95 latency"
    )


def _why_dominated(
    number: int, points: Points, best: list[int], candidates: list[Candidate]
) -> str:
    accuracy, latency = points[number]
    by = next(b for b in best if points[b][0] >= accuracy and points[b][1] <= latency)
    return (
        f"dominated by {candidates[by].name}: validation accuracy {points[by][0]:.4f} ≥ "
        f"{accuracy:.4f} at p95 {points[by][1]:.3g} ms ≤ {latency:.3g} ms"
    )
