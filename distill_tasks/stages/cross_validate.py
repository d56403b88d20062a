"""Stage ``cross_validate``: trains students again on other carvings of validation from train."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from distill_tasks.core.errors import say_error, stop_if_disk_full
from distill_tasks.results.cross_validation import (
    ONE_CARVING,
    CrossValidation,
    list_compared,
    open_folds,
)
from distill_tasks.results.grid import Trial
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.trained import train_one
from distill_tasks.stages.stage import stage

logger = logging.getLogger("potstill")


@stage("compare on further carvings")
def cross_validate(run: Run, trials: Sequence[Trial]) -> CrossValidation:
    """Train students again on every further carving of validation from train."""
    return train_folds(run.open(), trials)


def train_folds(run: OpenRun, trials: Sequence[Trial]) -> CrossValidation:
    """Train the students that are compared so on every further carving.

    One that fails there is compared on the first carving alone.
    """
    if run.config.evaluate.validation_folds == 1:
        return ONE_CARVING
    compared = list_compared(run.config, trials)
    folds = [
        _train_fold(fold, [replace(trial, carving=number) for trial in compared])
        for number, (fold, _) in enumerate(open_folds(run), start=2)
    ]
    reused = all(student.reused for trained in folds for student in trained)
    return CrossValidation(folds, reused)


def _train_fold(run: OpenRun, trials: Sequence[Trial]) -> list[StudentReference]:
    trained = []
    for trial in trials:
        try:
            trained.append(train_one(run, trial))
        except Exception as error:  # noqa: BLE001  # one failed training must not end the run
            stop_if_disk_full(error)
            logger.warning("cross-validate %s: left out, %s", trial.name, say_error(error))
    return trained
