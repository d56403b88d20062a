"""Stage ``prove``: held-out rows say of every finalist whether its teacher helped, and for whom."""

from __future__ import annotations

from dataclasses import asdict, replace

from distill_tasks.core.decisions import log_decision
from distill_tasks.core.digests import digest
from distill_tasks.results.evaluator import Evaluator, answer_somewhere
from distill_tasks.results.outcomes import Judgement, Proof
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.scoring.fidelity import draw_panel
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.production import ProductionCheck, check_production
from distill_tasks.scoring.promises import PromiseTest, check_promises, share_error
from distill_tasks.scoring.scorecard import quality_statistic
from distill_tasks.scoring.verdicts import (
    PairedComparison,
    Verdict,
    compare_answers,
    correct_holm,
    decide,
    estimate_ratio,
    name_scarce,
    rows_needed,
)
from distill_tasks.stages.stage import stage
from distill_tasks.students.controls import WORDS_ON_GOLD, has_words_on_gold

NO_RATIO = "the teacher does not clearly beat this control, so no distillation ratio is given"

CODE_VERSION = 4
"""Raised when a change of the code changes what is proven."""


@stage("judge finalists on held-out")
def prove(run: Run, students: list[StudentReference], leading: list[str]) -> Proof:
    """Judge the finalists, each in the form in which it would be served."""
    opened = run.open()
    answer_somewhere(run, opened, students, "held_out")
    return prove_all(opened, students, leading)


def prove_all(run: OpenRun, students: list[StudentReference], leading: list[str]) -> Proof:
    """Judge every finalist against its control, and draw where it differs from the teacher.

    ``leading`` names one candidate of each, so that as many verdicts are given as there are
    finalists, however many variants compete. A control always runs as it was trained.
    """
    seeds = {name: _find_seeds(students, name) for name in leading}
    key = digest(
        CODE_VERSION,
        [leading, [student.digest for student in students]],
        [run.answers_digest, run.corpus.digest, run.config.select.metric, run.config.seed],
        [asdict(promise) for promise in run.list_promises()],
        *([WORDS_ON_GOLD] if run.config.registry.candidate == WORDS_ON_GOLD else []),
    )
    proof, kept = run.store.remember(
        "proofs", key, Proof, lambda: _prove_seeds(run, students, seeds)
    )
    for name, found in proof.judgements.items():
        log_decision("verdict", str(found.verdict), candidate=name, reason=found.reason)
    return replace(proof, reused=kept)


def _prove_seeds(
    run: OpenRun, students: list[StudentReference], seeds: dict[str, list[StudentReference]]
) -> Proof:
    evaluator = Evaluator(run, "held_out")
    judgements = {name: judge_student(evaluator, group) for name, group in seeds.items()}
    served = {name: next(s for s in group if s.served) for name, group in seeds.items()}
    panels = {
        name: draw_panel(evaluator.eval_split, evaluator.ask(s)) for name, s in served.items()
    }
    production: dict[str, ProductionCheck] = {}
    if "production" in run.corpus.splits:
        seen = Evaluator(run, "production")
        production = {
            name: check_production(
                evaluator.eval_split, evaluator.ask(s), seen.eval_split, seen.ask(s)
            )
            for name, s in served.items()
        }
    parities = evaluator.compare_variants(students, evaluator.ask_candidates(students))
    eval_split = evaluator.eval_split
    scarce = (
        ""
        if eval_split.gold is None
        else name_scarce(eval_split.gold, eval_split.classes, eval_split.metric)
    )
    judged = _flag(_correct(judgements, scarce), production)
    return Proof(
        judgements=judged,
        panels=panels,
        parities=parities,
        production=production,
        promises=_test_promises(evaluator, served),
        against_words=_compare_to_words(evaluator, seeds),
        reused=False,
    )


def _compare_to_words(
    evaluator: Evaluator, seeds: dict[str, list[StudentReference]]
) -> dict[str, PairedComparison]:
    """Compare every finalist, over its seeds, with the control that is cheapest to have."""
    eval_split, seed = evaluator.eval_split, evaluator.run.config.seed
    gold = eval_split.gold
    if gold is None or not has_words_on_gold(evaluator.run.corpus.splits["train"]):
        return {}
    words = [eval_split.decide(evaluator.ask_control(WORDS_ON_GOLD))]
    return {
        name: compare_answers(
            gold,
            [eval_split.decide(evaluator.ask(student)) for student in group if student.distilled],
            words,
            metric=eval_split.metric,
            seed=seed,
        )
        for name, group in seeds.items()
    }


def _test_promises(
    evaluator: Evaluator, served: dict[str, StudentReference]
) -> dict[str, list[PromiseTest]]:
    """Test what is promised of every finalist as it is served, one after the other.

    The cheap control is tested alone where it is what will be registered.
    """
    run, eval_split = evaluator.run, evaluator.eval_split
    promises, seed = run.list_promises(), run.config.seed
    tests = {
        name: check_promises(promises, eval_split, evaluator.ask(student), error=error, seed=seed)
        for (name, student), error in zip(served.items(), share_error(len(served)), strict=True)
    }
    if run.config.registry.candidate == WORDS_ON_GOLD:
        words = evaluator.ask_control(WORDS_ON_GOLD)
        (error,) = share_error(1)
        tests[WORDS_ON_GOLD] = check_promises(promises, eval_split, words, error=error, seed=seed)
    return tests


def _find_seeds(students: list[StudentReference], candidate: str) -> list[StudentReference]:
    """Return the seeds of a candidate, then those of its student's control."""
    distilled = [
        student for student in students if student.distilled and student.candidate == candidate
    ]
    alone = [s for s in students if not s.distilled and s.student == distilled[0].student]
    return distilled + alone


def judge_student(evaluator: Evaluator, seeds: list[StudentReference]) -> Judgement:
    """Judge a student, over its seeds, against its control; p is not corrected yet."""
    eval_split, seed = evaluator.eval_split, evaluator.run.config.seed
    distilled = [evaluator.ask(student) for student in seeds if student.distilled]
    alone = [evaluator.ask(student) for student in seeds if not student.distilled]
    if eval_split.gold is None:
        return _undecided("held_out has no gold: only agreement with the teacher was measured")
    if not alone:
        return _undecided("there is no control to compare with: evaluate.controls is off")
    ours, theirs = ([eval_split.decide(one) for one in group] for group in (distilled, alone))
    comparison = compare_answers(eval_split.gold, ours, theirs, metric=eval_split.metric, seed=seed)
    student, control, teacher = (
        quality_statistic(eval_split, group) for group in (distilled, alone, [eval_split.teacher])
    )
    rows = len(eval_split.split)
    lead, ratio = estimate_ratio(student, control, teacher, rows=rows, seed=seed)
    return Judgement(
        verdict=comparison.verdict,
        reason="",
        comparison=comparison,
        distillation_ratio=ratio,
        teacher_lead=lead,
        flags=[NO_RATIO] if ratio is None else [],
    )


def _correct(judgements: dict[str, Judgement], scarce: str) -> dict[str, Judgement]:
    """Correct the p-values for the number of students judged, and say what follows.

    ``scarce`` is what `name_scarce` says of the rows.
    """
    judged = {name: j.comparison for name, j in judgements.items() if j.comparison is not None}
    p_values = correct_holm([comparison.p_value for comparison in judged.values()])
    corrected = dict(judgements)
    for (name, comparison), p_value in zip(judged.items(), p_values, strict=True):
        verdict = decide(comparison.difference, p_value)
        final = PairedComparison(comparison.difference, p_value, verdict)
        corrected[name] = replace(
            judgements[name], verdict=verdict, comparison=final, reason=_explain(final, scarce)
        )
    return corrected


def _explain(comparison: PairedComparison, scarce: str) -> str:
    gap = comparison.difference
    p_value = _say_p(comparison.p_value)
    points = f"{gap.points} against the same student on gold alone, {p_value}"
    if comparison.verdict is not Verdict.INCONCLUSIVE:
        return points
    needed = rows_needed(gap)
    more = (
        f"about {needed:,} held-out rows would be needed to call a difference of this size"
        if needed and needed > gap.rows
        else "more held-out rows would narrow the interval"
    )
    return "; ".join(filter(None, [points, f"{more}, there are {gap.rows:,}", scarce]))


def _say_p(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _flag(
    judgements: dict[str, Judgement], production: dict[str, ProductionCheck]
) -> dict[str, Judgement]:
    """Add what the production sample says to the verdicts."""
    flagged = dict(judgements)
    for name, check in production.items():
        flags = list(judgements[name].flags)
        if check.is_worse:
            flags.append(
                f"worse on production: it agrees with the teacher on {_percent(check.agreement)} "
                f"there, on {_percent(check.held_out_agreement)} of held-out"
            )
        if check.is_foreign:
            flags.append(
                f"{_percent(check.out_of_distribution)} of production is less familiar to it than "
                "95 % of held-out"
            )
        flagged[name] = replace(judgements[name], flags=flags)
    return flagged


def _undecided(reason: str) -> Judgement:
    return Judgement(
        verdict=Verdict.INCONCLUSIVE,
        reason=reason,
        comparison=None,
        distillation_ratio=None,
        teacher_lead=None,
        flags=[],
    )


def _percent(figure: Figure) -> str:
    return f"{100 * figure.value:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
