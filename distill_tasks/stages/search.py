"""Stage ``search``: further students, each drawn in the light of those tried before it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.core.digests import digest
from distill_tasks.core.environment import describe_machine, list_versions
from distill_tasks.core.errors import say_error, stop_if_disk_full
from distill_tasks.measuring.latency import Latency
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Trial, first_trials
from distill_tasks.results.outcomes import Halving, Searched
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.trained import time_shapes, train_one
from distill_tasks.scoring.intervals import plain_value
from distill_tasks.scoring.scorecard import quality_statistic
from distill_tasks.stages.stage import stage
from distill_tasks.students import Student
from distill_tasks.students.search_settings import OptunaConfig
from distill_tasks.students.search_space import check_optuna

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger("potstill")

CODE_VERSION = 1
"""Raised when a change of the code changes the latencies that a search is told."""


@dataclass(frozen=True)
class Point:
    """What a search needs to know about a student."""

    quality: float
    """The metric that counts, on validation."""
    p95_ms: float


@stage("search further students")
def search(run: Run, halving: Halving) -> Searched:
    """Return the trials to train."""
    return find_trials(run, halving)


def find_trials(run: Run, halving: Halving) -> Searched:
    """Return the trials of the grid that halving did not stop, and those that the search adds."""
    kept = halving.remaining(first_trials(run.config, run.left_out))
    if run.config.search.optuna is None:
        return Searched(kept, reused=True)
    found = search_students(run.open(), run.config.search.optuna)
    further = [Trial(student, run.config.seed) for student in found.further]
    return Searched(kept + further, found.reused)


def search_students(run: OpenRun, wanted: OptunaConfig) -> Search:
    """Draw and train students, seeking high validation quality and low p95 latency.

    Each is trained whole, once and from the first seed; halving stops none of them. What is drawn
    depends on the configuration and on what the store keeps alone, so that a search that was killed
    goes through the same trials again without training. One that fails stays in, so that its
    training in the run says why.

    Source: Ozaki et al. 2020, "Multiobjective Tree-Structured Parzen Estimator for Computationally
    Expensive Optimization Problems".
    Raises InputError where optuna is not installed.
    """
    check_optuna()
    found = Search(run, Evaluator(run, "validation"))
    study = start_study(run.config.seed)
    for number in range(wanted.trials):
        trial, point = study.ask(), None
        try:
            student = wanted.draw(trial)
            logger.info("search %s: trial %d of %d", student.name, number + 1, wanted.trials)
            point = found.try_student(student)
        except Exception as error:  # noqa: BLE001  # one that crashes must not end the search
            stop_if_disk_full(error)
            logger.warning("search: trial %d failed, %s", number + 1, say_error(error))
        tell(study, trial, point)
    logger.info("search: %d trials found %d further students", wanted.trials, len(found.further))
    return found


class Search:
    """The students that a search tries."""

    def __init__(self, run: OpenRun, evaluator: Evaluator) -> None:
        self.run = run
        self.evaluator = evaluator
        self.points: dict[str, Point | None] = {}
        self.further: list[Student] = []
        """Those that are not of the grid."""
        self.reused = True

    def try_student(self, student: Student) -> Point | None:
        """Return the figures of a student, training it if needed; None if that failed before.

        Students of one name count as one: the name is what tells their runs apart.
        """
        name = student.name
        if name not in self.points:
            self.points[name] = None
            if name not in [known.name for known in self.run.config.students]:
                self.further.append(student)
            self.points[name] = self._find_point(student)
        return self.points[name]

    def _find_point(self, student: Student) -> Point:
        trained = train_one(self.run, Trial(student, self.run.config.seed))
        self.reused = self.reused and trained.reused
        eval_split = self.evaluator.eval_split
        statistic = quality_statistic(eval_split, [self.evaluator.ask(trained)])
        p95_ms = self._time(student, trained.folder).p95_ms
        return Point(plain_value(statistic, len(eval_split.split)), p95_ms)

    def _time(self, student: Student, folder: Path) -> Latency:
        """Return the times of a student's shape, kept so that a search sees the same ones again."""
        run, shape = self.run, student.shape
        key = digest(
            [CODE_VERSION, describe_machine(), list_versions()],
            [shape, run.corpus.digest, run.teacher.digest],
            run.config.measure.model_dump(),
        )
        found, kept = run.store.remember(
            "shapes", key, Latency, lambda: time_shapes(run, {shape: folder})[shape]
        )
        self.reused = self.reused and kept
        return found


def start_study(seed: int) -> optuna.Study:
    """Return an in-memory study that maximises quality and minimises latency."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it announces itself
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def tell(study: optuna.Study, trial: optuna.Trial, point: Point | None) -> None:
    """Report the result of a trial to a study; None if it failed."""
    import optuna

    if point is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, (point.quality, point.p95_ms))
