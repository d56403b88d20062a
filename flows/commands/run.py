"""Commands that distil: check, plan, run, label."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from distill_tasks.core.errors import NothingQualifiesError
from distill_tasks.core.run_lock import WAIT_MINUTES
from flows.answers import (
    CODES,
    DETAILED_CODES,
    Answer,
    Ending,
    answer_check,
    answer_plan,
    answer_run,
)
from flows.commands.checks import check_prefect, load_checked, load_written
from flows.commands.options import (
    AcceptLicence,
    Config,
    DetailedExitCodes,
    Estimate,
    Json,
    Set,
    Smoke,
    WaitMinutes,
)
from flows.printing import (
    count_candidates,
    out,
    print_check,
    print_estimate,
    print_outcome,
    print_plan,
    print_smoke,
)

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.core.notes import Note
    from distill_tasks.data.corpus import Corpus

logger = logging.getLogger("potstill")


def check(config: Config, *, set_: Set = None, json: Json = False) -> Answer:
    """Check configuration, rows, teacher and MLflow before any expensive work.

    Example: potstill check examples/reuters/distill.yaml
    """
    from distill_tasks.stages.prepare import check_config, report_on_data

    settings = load_written(config, set_)
    check_prefect()
    corpus = check_config(settings)
    notes = [*corpus.findings, *report_on_data(settings, corpus).warnings]
    notes += _note_looks(settings, corpus)
    if not json:
        print_check(settings, corpus, notes)
    return answer_check(settings, corpus, notes)


def _note_looks(config: DistillConfig, corpus: Corpus) -> list[Note]:
    from distill_tasks.tracking.store import open_store
    from registry.history import History

    history = History(open_store(config.tracking), config.registry.model)
    return history.note_looks(corpus.splits["held_out"])


def plan(config: Config, *, set_: Set = None, json: Json = False) -> Answer:
    """Say how many students a run would train, how large they are and how long they take.

    Each shape of student is tried for 20 steps, and the teacher on 160 rows; nothing is kept.

    Example: potstill plan examples/reuters/distill.yaml
    """
    from distill_tasks.stages.plan import plan_run
    from distill_tasks.stages.prepare import check_config

    settings = load_written(config, set_)
    corpus = check_config(settings)
    planned = plan_run(settings, corpus)
    if not json:
        print_plan(settings, planned)
    return answer_plan(settings, planned)


def run(
    config: Config,
    *,
    set_: Set = None,
    wait_minutes: WaitMinutes = WAIT_MINUTES,
    json: Json = False,
    detailed_exit_codes: DetailedExitCodes = False,
    accept_licence: AcceptLicence = False,
) -> Answer:
    """Distil: label, train the grid, measure, select, register, and promote what wins.

    Example: potstill run examples/reuters/distill.yaml
    """
    settings = load_checked(config, accept_licence, set_)
    from distill_tasks.stages.halve import will_halve
    from flows.distill import Outcome, distill

    halving = "on" if will_halve(settings) else "off"
    logger.info("grid: %s, halving %s", count_candidates(settings), halving)
    try:
        outcome = distill(settings, wait_minutes, accept_licence)
    except NothingQualifiesError as error:
        if not isinstance(error.outcome, Outcome):
            return _answer_unqualified(str(error), detailed_exit_codes)
        outcome = error.outcome
    if not json:
        print_outcome(outcome)
    return answer_run(outcome, detailed_exit_codes)


def label(
    config: Config,
    *,
    set_: Set = None,
    estimate: Estimate = False,
    smoke: Smoke = False,
    wait_minutes: WaitMinutes = WAIT_MINUTES,
    accept_licence: AcceptLicence = False,
) -> None:
    """Have the teacher answer every row and stop there; `run` reads the same answers.

    Example: potstill label examples/reuters/distill.yaml --estimate
    """
    if estimate or smoke:
        _preview(load_written(config, set_), wait_minutes, accept_licence, smoke=smoke)
        return
    settings = load_checked(config, accept_licence, set_)
    from flows.label import label_only

    labels = label_only(settings, wait_minutes, accept_licence)
    out.say(f"Teacher {labels.teacher} answered {labels.asked:,} new rows; kept in {labels.root}.")


def _preview(
    config: DistillConfig, wait_minutes: float, accept_licence: bool, *, smoke: bool
) -> None:
    """Print how the teacher answers a few rows, if asked for, and what the missing ones cost."""
    from distill_tasks.core.store import Store
    from distill_tasks.stages.prepare import check_config
    from distill_tasks.stages.preview import estimate_labels, try_teacher

    corpus = check_config(config)
    if smoke:
        config.teacher.check_licence(accept_licence)
        with Store(config.work_dir).lock(f"label {config.name}", wait_minutes):
            print_smoke(config, try_teacher(config, corpus))
    print_estimate(config, estimate_labels(config, corpus))


def _answer_unqualified(reason: str, detailed: bool) -> Answer:
    """Return the answer of a run that came to no candidate at all."""
    ending = Ending.NOTHING_QUALIFIED
    code = (DETAILED_CODES if detailed else CODES)[ending]
    return Answer(command="run", outcome=ending, exit_code=code, message=reason)
