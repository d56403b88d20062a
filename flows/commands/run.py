"""Commands that distil: check, plan, run, label."""

from __future__ import annotations

import logging

from distill_tasks.config import load_config
from distill_tasks.core.errors import NothingQualifiesError
from distill_tasks.core.run_lock import WAIT_MINUTES
from flows.commands.checks import check_prefect, load_checked
from flows.commands.options import Config, WaitMinutes
from flows.printing import (
    count_candidates,
    out,
    print_named,
    print_notes,
    print_outcome,
    print_plan,
)

logger = logging.getLogger("potstill")


def check(config: Config) -> None:
    """Check configuration, rows, teacher and MLflow before any expensive work.

    Example: potstill check examples/reuters/distill.yaml
    """
    from distill_tasks.stages.prepare import check_config, report_on_data

    settings = load_config(config)
    check_prefect()
    corpus = check_config(settings)
    rows = ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
    print_named(settings.name, f"{rows} rows; {len(corpus.classes)} classes")
    print_notes([*corpus.findings, *report_on_data(settings, corpus).warnings])
    out.print(f"  grid: {', '.join(student.name for student in settings.students)}")


def plan(config: Config) -> None:
    """Say how many students a run would train, how large they are and how long they take.

    Each shape of student is tried for 20 steps; nothing is kept, and the teacher is not asked.

    Example: potstill plan examples/reuters/distill.yaml
    """
    from distill_tasks.stages.plan import plan_grid
    from distill_tasks.stages.prepare import check_config

    settings = load_config(config)
    corpus = check_config(settings)
    print_plan(settings, plan_grid(settings, corpus))


def run(config: Config, *, wait_minutes: WaitMinutes = WAIT_MINUTES) -> None:
    """Distil: label, train the grid, measure, select, register, and promote what wins.

    Example: potstill run examples/reuters/distill.yaml
    """
    settings = load_checked(config)
    from distill_tasks.stages.halve import will_halve
    from flows.distill import Outcome, distill

    halving = "on" if will_halve(settings) else "off"
    logger.info("grid: %s, halving %s", count_candidates(settings), halving)
    try:
        print_outcome(distill(settings, wait_minutes))
    except NothingQualifiesError as error:
        if isinstance(error.outcome, Outcome):
            print_outcome(error.outcome)
        raise


def label(config: Config, *, wait_minutes: WaitMinutes = WAIT_MINUTES) -> None:
    """Have the teacher answer every row and stop there; `run` reads the same answers.

    Example: potstill label examples/reuters/distill.yaml
    """
    settings = load_checked(config)
    from flows.label import label_only

    labels = label_only(settings, wait_minutes)
    out.print(f"Teacher {labels.teacher} answered {labels.asked} new rows; kept in {labels.root}.")
