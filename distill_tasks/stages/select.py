"""Stages ``narrow``, ``select`` and ``choose``: the finalists, their order and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill_tasks.config import DistillConfig
from distill_tasks.core.decisions import log_decision
from distill_tasks.results.choice import (
    REDRAWS,
    Rule,
    choose_kept,
    find_finalists,
    select_candidate,
)
from distill_tasks.results.cross_validation import ONE_CARVING, CrossValidation, Pool, pool_gold
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Grid
from distill_tasks.results.outcomes import Latencies, Proof, Scores
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.selection import Candidate, Field, Redraws, Selection
from distill_tasks.scoring.intervals import SIDE, bootstrap, plain_value
from distill_tasks.scoring.prediction_powered import (
    ByTeacher,
    Evidence,
    Sample,
    collect_evidence,
    draw_sample,
)
from distill_tasks.scoring.promises import Promise, check_promises, measure
from distill_tasks.scoring.scorecard import EvalSplit, Predictions, quality_statistic
from distill_tasks.stages.stage import stage


@dataclass(frozen=True)
class Gathered:
    """All that is known of the candidates' quality."""

    evidence: Evidence
    moved: Sample
    """What the evidence adds to each one's quality on the run's own validation."""
    pool: Pool


@stage("pick at most {run.config.evaluate.finalists} finalists")
def narrow(
    run: Run, grid: Grid, scores: Scores, latencies: Latencies, *, cross: CrossValidation
) -> list[str]:
    """Name the finalists among the students of the grid, in the order of their tests."""
    field = make_field(run.open(), grid.students, scores, latencies, cross=cross)
    names = find_finalists(field, make_rule(run.config), run.config.evaluate.finalists)
    for place, name in enumerate(names, start=1):
        log_decision("narrow", "finalist", candidate=name, place=place)
    return names


@stage("order the finalists")
def select(
    run: Run,
    grid: Grid,
    scores: Scores,
    latencies: Latencies,
    *,
    cross: CrossValidation,
    finalists: list[str],
) -> Selection:
    """Order the finalists; drop those whose further trainings failed."""
    field = make_field(run.open(), grid.students, scores, latencies, cross=cross)
    left = [name for name in finalists if name not in grid.failed]
    return select_candidate(field, left, make_rule(run.config))


@stage("choose what keeps its promises")
def choose(run: Run, selection: Selection, proof: Proof) -> Selection:
    """Choose the first finalist that keeps every promise on held-out."""
    made = choose_kept(selection, proof, run.config.select)
    reason = made.reasons[made.chosen] if made.chosen else made.why_none
    outcome = "chosen" if made.chosen else "none"
    log_decision("choose", outcome, candidate=made.chosen, reason=reason)
    return made


def make_rule(config: DistillConfig) -> Rule:
    """Return how the candidates of a configuration are ranked."""
    return Rule(config.select, config.registry.allowed_drop)


def make_field(
    run: OpenRun,
    students: list[StudentReference],
    scores: Scores,
    latencies: Latencies,
    *,
    cross: CrossValidation = ONE_CARVING,
) -> Field:
    """Compare all candidates with each other on the same gold rows."""
    config, evaluator = run.config, Evaluator(run, scores.split)
    answers = evaluator.ask_candidates(students)
    asked = {name: answers[name] for name in scores.candidates}
    parities = evaluator.compare_variants(students, asked)
    promises = _find_judged(run.list_promises(), evaluator.eval_split)
    pool = pool_gold(evaluator, students, cross)
    gathered = _gather(run, evaluator.eval_split, students, asked, pool=pool)
    evidence, moved = gathered.evidence, gathered.moved
    follow = {promise: _follow_quality(promise, evaluator.eval_split) for promise in promises}
    candidates, asked_served = [], []
    for number, (name, card) in enumerate(scores.candidates.items()):
        served = next(s for s in students if s.name == name)
        parity = parities.get(name)
        rejected = parity.why_rejected(config.registry.allowed_drop) if parity else ""
        asked_served.append(evaluator.ask(served))
        tests = check_promises(
            promises, evaluator.eval_split, asked_served[-1], error=SIDE, seed=config.seed
        )
        candidates.append(
            Candidate(
                student=served,
                validation=card,
                latency=latencies.by_name[name],
                footprint=latencies.footprints[name],
                parity=parity,
                rejected=rejected,
                powered=evidence.qualities[number],
                promises=tuple(
                    test.move(follow[test.promise] * moved.plain[number]) for test in tests
                ),
            )
        )
    margins = _redraw_margins(evaluator.eval_split, follow, asked_served, gathered)
    return Field(
        candidates=candidates,
        gaps=evidence.low_gaps,
        band=latencies.band,
        objectives=config.select.objectives,
        redraws=Redraws(evidence.draws[:REDRAWS], margins),
    )


def _find_judged(promises: Sequence[Promise], eval_split: EvalSplit) -> list[Promise]:
    """Return the promises without those about classes with too few validation rows."""
    rows = dict(zip(eval_split.classes, eval_split.truth.sum(axis=0), strict=True))
    return [p for p in promises if not p.of_class or p.can_judge(rows[p.of_class])]


def _gather(
    run: OpenRun,
    eval_split: EvalSplit,
    students: list[StudentReference],
    asked: dict[str, list[Predictions]],
    *,
    pool: Pool,
) -> Gathered:
    """Return what all gold and the teacher's labels say of the candidates' quality."""
    student_of = {student.candidate: student.student for student in students}
    first = {name: quality_statistic(eval_split, asked[name]) for name in asked}
    gold = [pool.add_gain(student_of[name], statistic) for name, statistic in first.items()]
    by_teacher = _score_by_teacher(run, eval_split, students, asked)
    if by_teacher is not None:
        on_gold = [pool.widen(statistic) for statistic in by_teacher.on_gold]
        by_teacher = replace(by_teacher, on_gold=on_gold)
    evidence = collect_evidence(gold, pool.rows, by_teacher, pool.seed)
    evidence = replace(evidence, rows=pool.scored)
    if not pool.gains:
        return Gathered(evidence, evidence.moved, pool)
    alone = draw_sample(
        [pool.widen(statistic) for statistic in first.values()], pool.rows, pool.seed
    )
    moved = Sample(evidence.plain - alone.plain, evidence.draws - alone.draws)
    return Gathered(evidence, moved, pool)


def _score_by_teacher(
    run: OpenRun,
    eval_split: EvalSplit,
    students: list[StudentReference],
    asked: dict[str, list[Predictions]],
) -> ByTeacher | None:
    """Return candidates' agreement with the teacher on validation and on the scored rows.

    None where no rows are held back for that.
    """
    if "scored" not in run.corpus.splits:
        return None
    scored = Evaluator(run, "scored")
    answers, alone = scored.ask_candidates(students), eval_split.without_gold
    return ByTeacher(
        on_gold=[quality_statistic(alone, predictions) for predictions in asked.values()],
        further=[quality_statistic(scored.eval_split, answers[name]) for name in asked],
        rows=len(scored.eval_split.split),
    )


def _follow_quality(promise: Promise, eval_split: EvalSplit) -> float:
    """Return the change of a promise's figure when the quality changes by one."""
    if promise.measure == eval_split.metric:
        return 1.0
    if promise.measure != "retention":
        return 0.0
    teacher = quality_statistic(eval_split, [eval_split.teacher])
    return 1 / max(plain_value(teacher, len(eval_split.split)), 1e-12)


def _redraw_margins(
    eval_split: EvalSplit,
    follow: dict[Promise, float],
    predictions: Sequence[Predictions],
    gathered: Gathered,
) -> np.ndarray:
    """Return the smallest margin of each candidate's promises (draws, candidates).

    ``follow`` holds for every promise what `_follow_quality` returns.
    """
    pool = gathered.pool
    if not follow:
        return np.zeros((REDRAWS, len(predictions)))
    margins = []
    for answers, shift in zip(predictions, gathered.moved.draws[:REDRAWS].T, strict=True):
        statistics = {str(p): pool.widen(measure(p, eval_split, answers).statistic) for p in follow}
        drawn = bootstrap(statistics, pool.rows, pool.seed, draws=REDRAWS)
        kept = [drawn[str(p)] + moves * shift - p.least for p, moves in follow.items()]
        margins.append(np.min(kept, axis=0))
    return np.stack(margins, axis=1)
