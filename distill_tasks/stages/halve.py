"""Stage ``halve``: students that others surely beat on the way are trained no further."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from distill_tasks.config import AUTO, DistillConfig
from distill_tasks.core.decisions import log_decision
from distill_tasks.core.digests import digest
from distill_tasks.core.environment import describe_machine
from distill_tasks.core.errors import say_error, stop_if_disk_full
from distill_tasks.execution.base import HERE, map_at_once
from distill_tasks.measuring.latency import find_band, tie
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Trial, first_trials
from distill_tasks.results.outcomes import Halving, Stop
from distill_tasks.results.references import PartOfTraining
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.trained import (
    find_part,
    time_shapes,
    train_partly,
    train_partly_there,
)
from distill_tasks.scoring.intervals import lowest_gaps, plain_value
from distill_tasks.scoring.scorecard import Predictions, quality_statistic
from distill_tasks.stages.stage import stage
from distill_tasks.students import Student

logger = logging.getLogger("potstill")

CODE_VERSION = 4
"""Raised when a change of the code changes who is stopped."""

RUNGS = (1 / 8, 1 / 4, 1 / 2)
"""Shares of its training after which a student is compared. Source: Jamieson and Talwalkar 2016,
"Non-stochastic Best Arm Identification and Hyperparameter Optimization"; here nobody is stopped for
its rank, only where another one is surely better and as fast."""
FEWEST_STUDENTS = 7
"""From so many on, ``auto`` halves."""


TrainPartly = Callable[[Trial, float], PartOfTraining]
"""Trains a student up to a share of its training."""


@dataclass(frozen=True)
class Contender:
    """A student on a rung."""

    name: str
    part: PartOfTraining
    predictions: Predictions
    p95_ms: float


@stage("stop weak students early")
def halve(run: Run) -> Halving:
    """Stop students on the way."""
    opened, competing = run.open(), list_competing(run.config, run.left_out)
    with run.config.execution.start(len(competing)) as workers:

        def train_somewhere(trial: Trial, share: float) -> PartOfTraining:
            if workers is not HERE and find_part(opened, trial, share) is None:
                about = f"halve {trial.student.name}"
                workers.call(about, partial(train_partly_there, run, trial, share))
            return train_partly(opened, trial, share)

        return halve_grid(opened, train_somewhere, workers.at_once)


def list_competing(config: DistillConfig, left_out: Collection[str] = ()) -> list[Trial]:
    """Return the trials of students that can be stopped on the way; none if nobody is."""
    trials = [trial for trial in first_trials(config, left_out) if trial.student.in_rungs]
    return trials if will_halve(config) and len(trials) > 1 else []


def halve_grid(run: OpenRun, train: TrainPartly | None = None, at_once: int = 1) -> Halving:
    """Train the grid rung by rung, and stop whom another student surely beats at no more latency.

    Students compete that can be stopped; the others train in seconds. One that fails here stays
    in, so that its training says why. ``train`` is called for so many ``at_once``; by default
    students train in this process.
    """
    config, objective = run.config, run.objective
    trials = list_competing(config, run.left_out)
    if not trials:
        return Halving(0, [], 0.0, reused=True)
    loss = config.loss.model_dump(exclude={"suspicious_weight"})  # it is in the lesson's digest
    key = digest(
        [CODE_VERSION, RUNGS, describe_machine()],
        [trial.student.model_dump() for trial in trials],
        [run.corpus.digest, run.lesson_digest, config.seed, config.select.metric],
        [loss, objective.temperature, objective.alpha],
        config.measure.model_dump(),
    )

    def race() -> Halving:
        halving = SuccessiveHalving(run, Evaluator(run, "validation"), train, at_once)
        for share in RUNGS:
            halving.reach(share, trials)
        return halving.finish()

    found, kept = run.store.remember("halvings", key, Halving, race)
    for stop in found.stops:
        log_decision(
            "halve", "stopped", candidate=stop.name, compared_to=stop.better, reason=stop.reason
        )
    return replace(found, reused=kept)


class SuccessiveHalving:
    """The students of one grid on their way."""

    def __init__(
        self,
        run: OpenRun,
        evaluator: Evaluator,
        train: TrainPartly | None = None,
        at_once: int = 1,
    ) -> None:
        self.run = run
        self.evaluator = evaluator
        self.train = train or partial(train_partly, run)
        self.at_once = at_once
        self.latencies: dict[str, float] = {}
        self.parts: dict[str, PartOfTraining] = {}
        self.stops: dict[str, Stop] = {}

    def reach(self, share: float, trials: list[Trial]) -> None:
        """Train all who still run up to a share of their training, and stop whom others beat."""
        running = [trial for trial in trials if trial.student.name not in self.stops]
        trained = map_at_once(partial(self._try_one, share), running, self.at_once)
        parts = {
            trial.student.name: part
            for trial, part in zip(running, trained, strict=True)
            if part is not None
        }
        if not parts:
            return
        self.parts |= parts
        if not self.latencies:
            self.latencies = self._time([t.student for t in running if t.student.name in parts])
        contenders = [
            Contender(name, part, self._predictions(part), self.latencies[name])
            for name, part in parts.items()
            if name in self.latencies
        ]
        for stop in self._compare(contenders, share):
            logger.info("halve %s: %s", stop.name, stop.reason)
            self.stops[stop.name] = stop

    def finish(self) -> Halving:
        """Return who was stopped and what that saved."""
        whole_s = sum(part.seconds / part.share for part in self.parts.values())
        return Halving(len(self.parts), list(self.stops.values()), whole_s, reused=False)

    def _try_one(self, share: float, trial: Trial) -> PartOfTraining | None:
        name = trial.student.name
        logger.info("halve %s: to %.3g %% of its training", name, 100 * share)
        try:
            return self.train(trial, share)
        except Exception as error:  # noqa: BLE001  # its own training says why
            stop_if_disk_full(error)
            logger.warning("halve %s: %s", name, say_error(error))
            return None

    def _predictions(self, part: PartOfTraining) -> Predictions:
        return Predictions(part.validation, self.evaluator.calibrate(part.validation))

    def _time(self, students: list[Student]) -> dict[str, float]:
        """Return p95 in milliseconds of each, timed once for all that differ in training alone."""
        shapes = {student.name: student.shape for student in students}
        folders = {shape: self.parts[name].folder for name, shape in shapes.items()}
        found = time_shapes(self.run, folders)
        band = find_band(list(found.values()))
        tied = tie(np.array([latency.p95_ms for latency in found.values()]), band)
        by_shape = dict(zip(found, tied.tolist(), strict=True))
        return {name: by_shape[shape] for name, shape in shapes.items()}

    def _compare(self, contenders: list[Contender], share: float) -> list[Stop]:
        eval_split = self.evaluator.eval_split
        statistics = [
            quality_statistic(eval_split, [contender.predictions]) for contender in contenders
        ]
        gaps = lowest_gaps(statistics, len(eval_split.split), self.run.config.seed)
        values = [plain_value(statistic, len(eval_split.split)) for statistic in statistics]
        order = sorted(range(len(contenders)), key=lambda n: (-values[n], contenders[n].p95_ms))
        stops: list[Stop] = []
        ahead: list[int] = []
        for number in order:
            contender = contenders[number]
            as_fast = [n for n in ahead if contenders[n].p95_ms <= contender.p95_ms]
            best = max(as_fast, key=lambda n: gaps[n, number], default=None)
            if best is None or gaps[best, number] <= 0:
                ahead.append(number)
                continue
            stops.append(
                Stop(
                    name=contender.name,
                    share=share,
                    better=contenders[best].name,
                    gap=100 * float(gaps[best, number]),
                    saved_s=contender.part.seconds * (1 - share) / share,
                )
            )
        return stops


def will_halve(config: DistillConfig) -> bool:
    """Return whether students are compared on the way."""
    wanted = config.search.halving
    return wanted is True or (wanted == AUTO and len(config.students) >= FEWEST_STUDENTS)
