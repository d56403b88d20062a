"""Why a candidate was chosen or not: one sentence for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distill_tasks.results.outcomes import Proof
from distill_tasks.results.selection import Candidate, Field, Selection
from distill_tasks.scoring.pareto import front_among
from distill_tasks.scoring.promises import PromiseTest
from distill_tasks.scoring.settings import SelectConfig
from distill_tasks.scoring.statistics import QUALITY_NAMES


def find_misses(candidate: Candidate, config: SelectConfig) -> list[str]:
    """Return a sentence for each limit that a candidate misses, and promise it surely breaks."""
    return [
        *([candidate.rejected] if candidate.rejected else []),
        *(
            f"misses {name} {limit:g}: {found:.4g}"
            for name, found, limit in _list_limits(candidate, config)
            if found > limit
        ),
        *(
            f"surely misses {test}, on validation"
            for test in candidate.promises
            if test.surely_broken
        ),
    ]


def explain(
    field: Field, number: int, chosen: int | None, running: Sequence[int], config: SelectConfig
) -> str:
    """Return why a candidate that meets the constraints comes first, or does not."""
    front = front_among(field.points, running)
    if number == chosen:
        return f"chosen: {config.choose} of {len(front)} on the front"
    if chosen is None:
        return "was no finalist, and only a finalist may be chosen"
    if field.are_ties(number, chosen):
        return (
            f"a tie with {field.candidates[chosen].name} in quality and latency, of which the "
            "smaller one is taken"
        )
    if number in front or number in field.front:
        away = "" if number in running else " (on one seed: it was no finalist)"
        return _explain_front(field, number, chosen, config) + away
    return _explain_behind(field, number)


def say_chosen(selection: Selection, name: str, tests: Sequence[PromiseTest]) -> str:
    """Return why a candidate was chosen that keeps its promises on held-out."""
    reason = selection.reasons[name]
    if name != selection.chosen:
        place = selection.leading.index(name)
        before = ", ".join(selection.leading[:place])
        reason = f"chosen: the first that keeps every promise on held-out, after {before}"
    return f"{reason}; kept: {'; '.join(map(str, tests))}" if tests else reason


def name_nearest(
    candidates: Sequence[Candidate], finalists: Sequence[str], config: SelectConfig
) -> str:
    """Return that no finalist meets the constraints on validation, naming the nearest one."""

    def worst_miss(candidate: Candidate) -> float:
        if candidate.rejected:
            return math.inf
        limits = _list_limits(candidate, config)
        misses = [(found - limit) / limit for _, found, limit in limits]
        misses += [test.miss("point") for test in candidate.promises]
        return max(misses, default=0.0)

    tested = [candidate for candidate in candidates if candidate.student.student in finalists]
    nearest, kind = min(tested or candidates, key=worst_miss), "finalist" if tested else "candidate"
    if not find_misses(nearest, config):
        return "No finalist is left: their further trainings failed. Nothing was promoted."
    return (
        f"No {kind} meets the constraints; {nearest.name} is nearest and "
        f"{'; '.join(find_misses(nearest, config))}. Nothing was promoted: relax `select`, or "
        "widen the grid."
    )


def name_nearest_tested(selection: Selection, proof: Proof, config: SelectConfig) -> str:
    """Return that no finalist keeps its promises on held-out, naming the nearest one."""

    def worst_miss(name: str) -> float:
        return max(test.miss(config.promise) for test in proof.promises[name])

    tested = [name for name in selection.leading if name not in selection.barred]
    nearest = min(tested, key=worst_miss)
    broken = [test for test in proof.promises[nearest] if not test.is_kept(config.promise)]
    end = "the estimate" if config.promise == "point" else "the lower end of the interval"
    return (
        f"Nothing was promoted: no finalist keeps every promise on held-out, where {end} must "
        f"reach it. {nearest} is nearest and misses {'; '.join(map(str, broken))}. Relax `select`, "
        "give more gold, or widen the grid."
    )


def _list_limits(candidate: Candidate, config: SelectConfig) -> list[tuple[str, float, float]]:
    """Return (limit's name, found, limit) for each limit that is set."""
    found = {
        "max_p95_latency_ms": (candidate.latency.p95_ms, config.max_p95_latency_ms),
        "max_disk_mb": (candidate.student.disk_mb, config.max_disk_mb),
    }
    return [(name, value, limit) for name, (value, limit) in found.items() if limit is not None]


def _explain_front(field: Field, number: int, chosen: int, config: SelectConfig) -> str:
    ours, other = field.candidates[number], field.candidates[chosen]
    points = 100 * (ours.quality.value - other.quality.value)
    ratio = ours.latency.p95_ms / other.latency.p95_ms
    if ours.margin < min(0, other.margin):
        return (
            f"on the front, but comes after {other.name}, as on validation it breaks "
            f"{min(ours.promises, key=lambda test: test.margin)}"
        )
    return (
        f"on the front, but {config.choose} prefers {other.name}: against it "
        f"this one has {points:+.2f} points of validation {_name_metric(field)} and {ratio:.2g}× "
        "the p95 latency"
    )


def _explain_behind(field: Field, number: int) -> str:
    points = field.points
    sure = field.beaten_by(number)
    ahead = [
        n
        for n in field.front
        if points[n][0] >= points[number][0] and (points[n][1:] <= points[number][1:]).all()
    ]
    by = ahead[0] if sure is None else sure
    ours, other = field.candidates[number].latency, field.candidates[by].latency
    tied = " (a tie)" if points[by][1] == points[number][1] else ""
    comparison = (
        f"validation {_name_metric(field)} {points[by][0]:.4f} against {points[number][0]:.4f} at "
        f"p95 {other.p95_ms:.3g} against {ours.p95_ms:.3g} ms{tied}"
    )
    name = field.candidates[by].name
    if sure is not None:
        return f"dominated by {name}: {comparison}"
    return (
        f"behind {name}: {comparison}; on validation this one may still be "
        f"better, by up to {-100 * field.gaps[by, number]:.2f} points"
    )


def _name_metric(field: Field) -> str:
    card = field.candidates[0].validation
    known = f"quality/{card.metric}" in card.figures
    return QUALITY_NAMES[card.metric] if known else "agreement"
