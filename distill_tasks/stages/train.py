"""Stage ``train``: trains one student on the teacher's answers, or a control on gold alone."""

from __future__ import annotations

from collections.abc import Sequence

from distill_tasks.results.grid import Grid, Trial
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import Run
from distill_tasks.results.trained import train_one
from distill_tasks.stages.stage import stage


@stage("train {trial.name}")
def train(run: Run, trial: Trial) -> StudentReference:
    """Train one student."""
    return train_one(run.open(), trial)


def train_all(run: Run, trials: Sequence[Trial], grid: Grid | None = None) -> Grid:
    """Train students one after another, each a task of its own, and return the grid with them."""
    return (grid or Grid()).add(trials, lambda trial: train(run, trial))
