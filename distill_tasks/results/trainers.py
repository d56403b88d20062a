"""Trainers: who trains the trials of a stage, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from distill_tasks.execution.base import HERE, Workers
from distill_tasks.results.cross_validation import open_carvings
from distill_tasks.results.grid import Trial
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.trained import find_trained, train_one, train_there


@dataclass(frozen=True)
class Trainers:
    """Workers that train trials of a run; those that are stored are read in this process."""

    run: Run
    trials: Sequence[Trial]
    workers: Workers
    stored: Collection[str]

    @property
    def at_once(self) -> int:
        """How many may train at once."""
        return self.workers.at_once

    def find(self, trial: Trial) -> Workers:
        """Return who trains a trial, or reads it."""
        return HERE if trial.name in self.stored else self.workers

    def train(self, trial: Trial) -> StudentReference:
        """Train a student, or read it."""
        workers = self.find(trial)
        if workers is HERE:
            return train_one(self.opened[trial.carving], trial)
        return workers.call(f"train {trial.name}", train_there, self.run, trial)

    @cached_property
    def opened(self) -> dict[int, OpenRun]:
        """The run on every carving that the trials need, opened once for all of this process."""
        return open_carvings(self.run.open(), self.trials)


@contextmanager
def start_trainers(run: Run, trials: Sequence[Trial]) -> Iterator[Trainers]:
    """Yield who trains these trials, as the configuration says; workers end with the block."""
    execution = run.config.execution
    stored = set() if execution.is_here else find_trained(run.open(), trials)
    with execution.start(len(trials) - len(stored)) as workers:
        yield Trainers(run, trials, workers, stored)
