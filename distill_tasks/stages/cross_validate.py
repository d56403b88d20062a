"""Stage ``cross_validate``: trains students again on other carvings of validation from train."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from distill_tasks.core.errors import say_error, stop_if_disk_full
from distill_tasks.execution.base import map_at_once
from distill_tasks.results.cross_validation import (
    ONE_CARVING,
    CrossValidation,
    list_again,
    open_carvings,
)
from distill_tasks.results.grid import Trial
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.trained import train_one
from distill_tasks.results.trainers import start_trainers
from distill_tasks.stages.stage import stage

logger = logging.getLogger("potstill")

Train = Callable[[Trial], StudentReference]
"""Trains a trial, on its carving."""


@stage("compare on further carvings")
def cross_validate(run: Run, trials: Sequence[Trial]) -> CrossValidation:
    """Train students again on every further carving of validation from train."""
    again = list_again(run.config, trials)
    with start_trainers(run, again) as trainers:
        return train_again(again, trainers.train, trainers.at_once)


def train_folds(run: OpenRun, trials: Sequence[Trial]) -> CrossValidation:
    """Train the students that are compared so on every further carving, in this process."""
    again = list_again(run.config, trials)
    runs = open_carvings(run, again)
    return train_again(again, lambda trial: train_one(runs[trial.carving], trial))


def train_again(again: Sequence[Trial], train: Train, at_once: int = 1) -> CrossValidation:
    """Train trials of further carvings; one that fails is compared on the first carving alone."""
    if not again:
        return ONE_CARVING

    def try_one(trial: Trial) -> StudentReference | None:
        try:
            return train(trial)
        except Exception as error:  # noqa: BLE001  # one failed training must not end the run
            stop_if_disk_full(error)
            logger.warning("cross-validate %s: left out, %s", trial.name, say_error(error))
            return None

    trained = list(zip(again, map_at_once(try_one, again, at_once), strict=True))
    folds = [
        [student for trial, student in trained if trial.carving == number and student is not None]
        for number in dict.fromkeys(trial.carving for trial in again)
    ]
    return CrossValidation(folds, all(one.reused for fold in folds for one in fold))
