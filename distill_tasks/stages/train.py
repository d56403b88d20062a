"""Stage ``train``: trains one student on the teacher's answers, or a control on gold alone."""

from __future__ import annotations

from collections.abc import Sequence

from distill_tasks.execution.base import HERE, Workers
from distill_tasks.results.grid import Grid, Trial
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import Run
from distill_tasks.results.trained import train_there
from distill_tasks.results.trainers import start_trainers
from distill_tasks.stages.stage import stage


@stage("train {trial.name}")
def train(run: Run, trial: Trial, workers: Workers = HERE) -> StudentReference:
    """Train one student, in this process unless workers are given."""
    return workers.call(f"train {trial.name}", train_there, run, trial)


def train_all(run: Run, trials: Sequence[Trial], grid: Grid | None = None) -> Grid:
    """Train students, each a task of its own, and return the grid with them.

    As many are trained at once as the configuration says. What is stored already is read here.
    """
    with start_trainers(run, trials) as trainers:

        def train_somewhere(trial: Trial) -> StudentReference:
            return train(run, trial, trainers.find(trial))

        return (grid or Grid()).add(trials, train_somewhere, trainers.at_once)
