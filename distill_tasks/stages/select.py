"""Stages ``narrow``, ``select`` and ``choose``: the finalists, their order and the choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distill_tasks.config import DistillConfig
from distill_tasks.results.choice import (
    REDRAWS,
    Rule,
    choose_kept,
    find_finalists,
    select_candidate,
)
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Grid
from distill_tasks.results.outcomes import Latencies, Proof, Scores
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.selection import Candidate, Field, Redraws, Selection
from distill_tasks.scoring.intervals import SIDE, bootstrap, plain_value
from distill_tasks.scoring.prediction_powered import ByTeacher, Evidence, collect_evidence
from distill_tasks.scoring.promises import Promise, check_promises, measure
from distill_tasks.scoring.scorecard import EvalSplit, Predictions, quality_statistic
from distill_tasks.stages.stage import stage


@stage("pick at most {run.config.evaluate.finalists} finalists")
def narrow(run: Run, grid: Grid, scores: Scores, latencies: Latencies) -> list[str]:
    """Name the finalists among the students of the grid, in the order of their tests."""
    field = make_field(run.open(), grid.students, scores, latencies)
    return find_finalists(field, make_rule(run.config), run.config.evaluate.finalists)


@stage("order the finalists")
def select(
    run: Run, grid: Grid, scores: Scores, latencies: Latencies, *, finalists: list[str]
) -> Selection:
    """Order the finalists; drop those whose further trainings failed."""
    field = make_field(run.open(), grid.students, scores, latencies)
    left = [name for name in finalists if name not in grid.failed]
    return select_candidate(field, left, make_rule(run.config))


@stage("choose what keeps its promises")
def choose(run: Run, selection: Selection, proof: Proof) -> Selection:
    """Choose the first finalist that keeps every promise on held-out."""
    return choose_kept(selection, proof, run.config.select)


def make_rule(config: DistillConfig) -> Rule:
    """Return how the candidates of a configuration are ranked."""
    return Rule(config.select, config.registry.allowed_drop)


def make_field(
    run: OpenRun, students: list[StudentReference], scores: Scores, latencies: Latencies
) -> Field:
    """Compare all candidates with each other on the same validation rows."""
    config, evaluator = run.config, Evaluator(run, scores.split)
    answers = evaluator.ask_candidates(students)
    asked = {name: answers[name] for name in scores.candidates}
    parities = evaluator.compare_variants(students, asked)
    promises = _find_judged(run.list_promises(), evaluator.eval_split)
    gold = [quality_statistic(evaluator.eval_split, asked[name]) for name in scores.candidates]
    rows = len(evaluator.eval_split.split)
    by_teacher = _score_by_teacher(run, evaluator.eval_split, students, asked)
    evidence = collect_evidence(gold, rows, by_teacher, config.seed)
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
                    test.move(follow[test.promise] * evidence.moved.plain[number]) for test in tests
                ),
            )
        )
    margins = _redraw_margins(evaluator.eval_split, follow, asked_served, evidence)
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
    evidence: Evidence,
) -> np.ndarray:
    """Return the smallest margin of each candidate's promises (draws, candidates).

    ``follow`` holds for every promise what `_follow_quality` returns.
    """
    if not follow:
        return np.zeros((REDRAWS, len(predictions)))
    margins = []
    for answers, moved in zip(predictions, evidence.moved.draws[:REDRAWS].T, strict=True):
        statistics = {str(p): measure(p, eval_split, answers).statistic for p in follow}
        drawn = bootstrap(statistics, len(eval_split.split), evidence.seed, draws=REDRAWS)
        kept = [drawn[str(p)] + moves * moved - p.least for p, moves in follow.items()]
        margins.append(np.min(kept, axis=0))
    return np.stack(margins, axis=1)
