"""What training a student would take, from a few steps of each shape of student."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from distill_tasks.config import DistillConfig
from distill_tasks.core.live import shown
from distill_tasks.core.progress import ProgressFile, TrainingStep
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.problems.classification import NO_LABEL
from distill_tasks.results.references import TeacherReference
from distill_tasks.results.run import OpenRun, make_training_set, take
from distill_tasks.students import Student
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.folder import count_parameters

logger = logging.getLogger("potstill")

WARM_STEPS = 2
"""The first ones are not timed."""


@dataclass(frozen=True)
class Planned:
    """One student of the grid, and what training it once would take."""

    name: str
    parameters: int
    at_least: bool
    """Whether words that the probe did not see may make it larger."""
    steps: int | None
    """None where it does not learn in steps."""
    minutes: float


@dataclass(frozen=True)
class Probe:
    """What was seen while one shape of student learnt from some rows of the training set."""

    rows: int
    parameters: int
    seconds: float
    """All of it, what comes before the first step included."""
    steps: int
    step_s: float


class Pace:
    """How long the steps of a training took."""

    def __init__(self, steps: Iterable[TrainingStep]) -> None:
        self.times: dict[int, float] = {}
        for step in steps:  # the same one may be told again, with its accuracy
            self.times.setdefault(step.step, step.seconds)

    @property
    def steps(self) -> int:
        """Return the steps taken, 0 where none was told."""
        return max(self.times, default=0)

    @property
    def step_s(self) -> float:
        """Return the mean time of a step in seconds, 0 where none was told."""
        if not self.steps:
            return 0.0
        first = WARM_STEPS if self.steps > 2 * WARM_STEPS else 0
        warm = min(step for step in self.times if step >= first)
        return (self.times[self.steps] - self.times[warm]) / (self.steps - warm)


def plan_grid(config: DistillConfig, corpus: Corpus) -> list[Planned]:
    """Return what each student of the grid is and takes, from a few steps of each shape.

    It learns made-up answers to real rows, in a folder that is thrown away. Students that differ
    only in the course of their training share the probe. The base of a teacher that is still to be
    fine-tuned stands in for it.
    """
    planned, probes = [], dict[str, Probe]()
    with TemporaryDirectory() as folder, shown(scratch := Path(folder)):
        training_set = _make_training_set(config, corpus, scratch)
        for student in config.students:
            pace = student.pace
            if pace not in probes:
                logger.info("plan: a few steps of %s", student.name)
                probes[pace] = _try(student, training_set, ProgressFile(scratch, student.name))
            planned.append(estimate_student(student, probes[pace], len(training_set.rows)))
    return planned


def _make_training_set(config: DistillConfig, corpus: Corpus, scratch: Path) -> TrainingSet:
    """Return a training set with random answers, none of its files outside ``scratch``."""
    start, rows, classes = config.teacher.start, corpus.training_rows, corpus.classes
    teacher = TeacherReference("planned", classes, model=start, seconds=0.0, curve=[], reused=False)
    shape = len(rows), len(classes)
    logits = np.random.default_rng(config.seed).normal(size=shape).astype(np.float32)
    labels = SoftLabelStore(str(scratch / "labels"), teacher.digest, classes)
    labels.add(rows.texts, logits)
    alike = config.loss.model_copy(update={"suspicious_weight": 1.0})  # nothing is known of these
    config = config.model_copy(update={"loss": alike})
    run = OpenRun(config, corpus, teacher, labels, objective=config.loss.usual_objective)
    return replace(make_training_set(run, config.seed), work_dir=scratch)


def _try(student: Student, training_set: TrainingSet, progress: ProgressFile) -> Probe:
    """Train a student on some rows for one epoch.

    The rows are drawn from the whole training set. Its own first batches would be the longest:
    on R8 their steps are a third longer than the mean one.
    """
    short = student.short_training
    order = np.random.default_rng(training_set.seed).permutation(len(training_set.rows))
    part = take(training_set, np.sort(order[: short.rows]))
    # Without gold on validation nothing is scored.
    nothing = Split(part.rows.texts[:1], np.full_like(part.rows.gold[:1], NO_LABEL))
    part = replace(part, validation=nothing, progress=progress)
    with progress.told():
        probe = _train(short.student, part, progress)
        # What does not tell its steps is timed as a whole, which the first time has imports in it.
        return probe if probe.steps else _train(short.student, part, progress)


def _train(student: Student, training_set: TrainingSet, progress: ProgressFile) -> Probe:
    """Train a student and throw it away."""
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        student.train(training_set, Path(folder))
        seconds = time.monotonic() - start
        parameters = count_parameters(Path(folder))
    pace = Pace(progress.read())
    return Probe(
        rows=len(training_set.rows),
        parameters=parameters,
        seconds=seconds,
        steps=pace.steps,
        step_s=pace.step_s,
    )


def estimate_student(student: Student, probe: Probe, rows: int) -> Planned:
    """Return what a student takes that learns from so many rows."""
    at_least = probe.rows < rows and student.grows_with_words
    if not probe.steps:
        seconds = probe.seconds * rows / probe.rows
        return Planned(student.name, probe.parameters, at_least, steps=None, minutes=seconds / 60)
    times = student.short_training.times
    steps = times * math.ceil(probe.steps * rows / probe.rows)
    return Planned(
        student.name, probe.parameters, at_least, steps=steps, minutes=steps * probe.step_s / 60
    )
