"""Stage ``vet``: whether the teacher is good enough, before any student is trained."""

from __future__ import annotations

import logging

from distill_tasks.config import AUTO
from distill_tasks.core.decisions import log_decision
from distill_tasks.core.errors import WeakTeacherError
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.scoring.statistics import QUALITY_NAMES
from distill_tasks.scoring.verdicts import (
    SIGNIFICANCE,
    PairedComparison,
    Verdict,
    compare_answers,
    smallest_difference,
)
from distill_tasks.stages.stage import stage
from distill_tasks.students.controls import CONTROLS, WORDS_ON_GOLD, has_words_on_gold

logger = logging.getLogger("potstill")

LEAD_TO_SHOW = 0.05
"""The lead over words on gold, as a share, that validation must be able to show.

Where its interval reaches further, `evaluate.weak_teacher: auto` blames the rows, not the teacher.
"""


@stage("compare the teacher with words")
def vet(run: Run) -> PairedComparison | None:
    """Compare the teacher with words on gold, and stop the run if it is not worth distilling."""
    return vet_teacher(run.open())


def vet_teacher(run: OpenRun) -> PairedComparison | None:
    """Compare the teacher with words on gold on validation; None if there is no such control.

    Raises WeakTeacherError where it is not surely better and `evaluate.weak_teacher` says so, and
    where it is less accurate than `evaluate.min_teacher_accuracy`.
    """
    _check_accuracy(run)
    comparison = _compare_with_words(run)
    if comparison is None:
        return None
    if comparison.verdict is Verdict.BEATS:
        _log("passed", comparison)
        return comparison
    rows, metric = comparison.difference.rows, QUALITY_NAMES[run.config.select.metric]
    weak = (
        f"The teacher is not surely better than {WORDS_ON_GOLD} ({CONTROLS[WORDS_ON_GOLD].about}): "
        f"{metric} {comparison.difference.points} on {rows:,} rows of validation."
    )
    if _stops(run.config.evaluate.weak_teacher, comparison):
        _log("stopped", comparison)
        raise WeakTeacherError(
            f"{weak} Use a better teacher, or serve words; `evaluate.weak_teacher: go_on` distils "
            "all the same."
        )
    _log("went_on", comparison)
    logger.warning("vet: %s Going on: %s.", weak, _say_why(run.config.evaluate.weak_teacher))
    return comparison


def _log(outcome: str, comparison: PairedComparison) -> None:
    log_decision(
        "vet",
        outcome,
        candidate="teacher",
        compared_to=WORDS_ON_GOLD,
        verdict=comparison.verdict,
        reason=str(comparison.difference.points),
    )


def _check_accuracy(run: OpenRun) -> None:
    """Raise WeakTeacherError where the teacher's accuracy is below what was asked for."""
    least = run.config.evaluate.min_teacher_accuracy
    if least is None:
        return
    found = Evaluator(run, "validation").score_teacher().figures["quality/accuracy"]
    if found.value < least:
        raise WeakTeacherError(
            f"The teacher's accuracy on {found.rows:,} rows of validation is {found}, below "
            f"evaluate.min_teacher_accuracy {least:g}. Use a better teacher, or take that out."
        )


def _compare_with_words(run: OpenRun) -> PairedComparison | None:
    train = run.corpus.splits["train"]
    if not (run.corpus.splits["validation"].has_gold and has_words_on_gold(train)):
        return None
    evaluator = Evaluator(run, "validation")
    eval_split = evaluator.eval_split
    teacher, words = (
        eval_split.decide(one) for one in (eval_split.teacher, evaluator.ask_control(WORDS_ON_GOLD))
    )
    return compare_answers(
        eval_split.truth, [teacher], [words], metric=eval_split.metric, seed=run.config.seed
    )


def _stops(weak_teacher: str, comparison: PairedComparison) -> bool:
    """Return whether a teacher that is not surely better ends the run."""
    if weak_teacher != AUTO:
        return weak_teacher == "stop"
    gap = comparison.difference
    surely_worse = gap.high < 0 and comparison.p_value < SIGNIFICANCE
    reach = max((gap.high - gap.low) / 2, smallest_difference(gap.rows))  # ties alone reach nowhere
    return surely_worse or reach <= LEAD_TO_SHOW


def _say_why(weak_teacher: str) -> str:
    if weak_teacher != AUTO:
        return "evaluate.weak_teacher says so"
    return f"so few rows would often not show a lead of {100 * LEAD_TO_SHOW:g} points"
