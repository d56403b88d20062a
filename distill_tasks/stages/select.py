"""Stages ``narrow`` and ``select``: the front, the chosen candidate, why each other one lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from distill_tasks.config import SelectConfig
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Grid
from distill_tasks.results.outcomes import Latencies, Scores
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.selection import Candidate, Field, Selection
from distill_tasks.scoring.intervals import lowest_gaps
from distill_tasks.scoring.pareto import Choice, find_front, rank
from distill_tasks.scoring.scorecard import quality_statistic
from distill_tasks.scoring.statistics import QUALITY_NAMES
from distill_tasks.stages.stage import stage


def find_finalists(field: Field, config: SelectConfig, most: int) -> list[str]:
    """Return the students worth all seeds and held-out rows, best first.

    Students on the front come first, in the order in which the configuration would choose them,
    then those that may be on it for all that validation says, the better ones first. Only
    candidates that meet the constraints count.
    """
    running = _allow(field, config)
    if not running.candidates:
        return []
    points, front = running.points, running.front
    ranked = [front[place] for place in rank(points[front], config.choose)]
    ranked += sorted(running.undecided, key=lambda number: (-points[number][0], points[number][1]))
    students = dict.fromkeys(running.candidates[number].student.student for number in ranked)
    return list(students)[:most]


def select_candidate(field: Field, finalists: Sequence[str], config: SelectConfig) -> Selection:
    """Draw the front on validation quality and p95 latency, and choose among the finalists."""
    candidates, allowed = field.candidates, _allow(field, config)
    running = [n for n, c in enumerate(allowed.candidates) if c.student.student in finalists]
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
        c.name: _explain(allowed, number, chosen, best=best, config=config)
        for number, c in enumerate(allowed.candidates)
    }
    shown = field.take([n for n, c in enumerate(candidates) if not c.rejected])
    ends = [(c.validation.quality.low, c.validation.quality.high) for c in shown.candidates]
    names, front = [candidate.name for candidate in shown.candidates], shown.front
    taken = None if chosen is None else allowed.candidates[chosen].name
    return Selection(
        candidates=candidates,
        finalists=list(finalists),
        leading=_lead(allowed, finalists, taken, config.choose),
        front=[names[n] for n in front],
        undecided=[names[n] for n in shown.undecided],
        chosen=taken,
        reasons=reasons,
        leaving=[names[n] for n in front if not shown.front_if(n, ends[n][0])],
        joining=[
            name for n, name in enumerate(names) if n not in front and shown.front_if(n, ends[n][1])
        ],
        why_none=why_none,
    )


@stage("narrow to {run.config.evaluate.finalists} finalists")
def narrow(run: Run, grid: Grid, scores: Scores, latencies: Latencies) -> list[str]:
    """Name the finalists among the students of the grid."""
    field = make_field(run.open(), grid.students, scores, latencies)
    return find_finalists(field, run.config.select, run.config.evaluate.finalists)


@stage("select by {run.config.select.choose}")
def select(
    run: Run, grid: Grid, scores: Scores, latencies: Latencies, *, finalists: list[str]
) -> Selection:
    """Choose among the finalists; one whose further trainings failed is none any more."""
    field = make_field(run.open(), grid.students, scores, latencies)
    left = [name for name in finalists if name not in grid.failed]
    return select_candidate(field, left, run.config.select)


def make_field(
    run: OpenRun, students: list[StudentReference], scores: Scores, latencies: Latencies
) -> Field:
    """Compare all candidates with each other on the same validation rows."""
    config, evaluator = run.config, Evaluator(run, scores.split)
    asked = evaluator.ask_candidates(students)
    parities = evaluator.compare_variants(students, asked)
    candidates = []
    for name, card in scores.candidates.items():
        served = next(s for s in students if s.name == name)
        parity = parities.get(name)
        rejected = parity.why_rejected(config.registry.allowed_drop) if parity else ""
        candidates.append(
            Candidate(
                student=served,
                validation=card,
                latency=latencies.by_name[name],
                footprint=latencies.footprints[name],
                parity=parity,
                rejected=rejected,
            )
        )
    statistics = [
        quality_statistic(evaluator.eval_split, asked[name]) for name in scores.candidates
    ]
    gaps = lowest_gaps(statistics, len(evaluator.eval_split.split), config.seed)
    return Field(candidates, gaps, latencies.band, config.select.objectives)


def _lead(
    allowed: Field, finalists: Sequence[str], chosen: str | None, choice: Choice
) -> list[str]:
    """Return of each finalist the candidate that would be served, the chosen one first."""
    leading = [] if chosen is None else [chosen]
    for student in finalists:
        mine = [n for n, c in enumerate(allowed.candidates) if c.student.student == student]
        names = [allowed.candidates[number].name for number in mine]
        if not mine:
            leading.append(student)
        elif chosen not in names:
            field = allowed.take(mine)
            best = rank(field.points[field.front], choice)[0]
            leading.append(names[field.front[best]])
    return leading


def _explain(
    field: Field, number: int, chosen: int | None, best: list[int], config: SelectConfig
) -> str:
    """Return why a candidate was chosen or not, among those that meet the constraints."""
    if number == chosen:
        return f"chosen: {config.choose} of {len(best)} on the front"
    if chosen is None:
        return "was no finalist, and only a finalist may be chosen"
    if number in best or number in field.front:
        away = "" if number in best else " (on one seed: it was no finalist)"
        return _why_not_chosen(field, number, chosen, config) + away
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
    """Return a sentence for every constraint that a candidate misses, parity among them."""
    return [
        *([candidate.rejected] if candidate.rejected else []),
        *(
            f"misses {name} {limit:g}: {found:.4g}"
            for name, found, limit, miss in _limits(candidate, config)
            if miss > 0
        ),
    ]


def _nearest(candidates: list[Candidate], finalists: Sequence[str], config: SelectConfig) -> str:
    """Return that nobody may be chosen: with all its seeds, no finalist meets the constraints."""

    def worst_miss(candidate: Candidate) -> float:
        if candidate.rejected:
            return math.inf
        return max((miss for *_, miss in _limits(candidate, config)), default=0.0)

    tested = [candidate for candidate in candidates if candidate.student.student in finalists]
    nearest, kind = min(tested or candidates, key=worst_miss), "finalist" if tested else "candidate"
    if not _excess(nearest, config):
        return "No finalist is left: their further trainings failed. Nothing was promoted."
    return (
        f"No {kind} meets the constraints; {nearest.name} is nearest and "
        f"{'; '.join(_excess(nearest, config))}. Nothing was promoted: relax `select`, or widen "
        "the grid."
    )


def _why_not_chosen(field: Field, number: int, chosen: int, config: SelectConfig) -> str:
    ours, other = field.candidates[number], field.candidates[chosen]
    points = 100 * (ours.validation.quality.value - other.validation.quality.value)
    ratio = ours.latency.p95_ms / other.latency.p95_ms
    return (
        f"on the front, but {config.choose} prefers {other.name}: against it "
        f"this one has {points:+.2f} points of validation {_metric(field)} and {ratio:.2g}× the "
        "p95 latency"
    )


def _why_behind(field: Field, number: int) -> str:
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
        f"validation {_metric(field)} {points[by][0]:.4f} against {points[number][0]:.4f} at p95 "
        f"{other.p95_ms:.3g} against {ours.p95_ms:.3g} ms{tied}"
    )
    name = field.candidates[by].name
    if sure is not None:
        return f"dominated by {name}: {comparison}"
    return (
        f"behind {name}: {comparison}; on validation this one may still be "
        f"better, by up to {-100 * field.gaps[by, number]:.2f} points"
    )


def _metric(field: Field) -> str:
    card = field.candidates[0].validation
    known = f"quality/{card.metric}" in card.figures
    return QUALITY_NAMES[card.metric] if known else "agreement"
