"""`potstill plan`: what training a grid would take, from a few steps of each shape of student."""

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
from distill_tasks.core.digests import digest
from distill_tasks.core.live import shown
from distill_tasks.core.progress import ProgressFile, TrainingStep
from distill_tasks.data.corpus import NO_LABEL, Corpus, Split
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.results.grid import further_trials
from distill_tasks.results.references import TeacherReference
from distill_tasks.results.run import OpenRun, make_training_set, take
from distill_tasks.students import BagOfWordsStudent, LayersStudent, StudentConfig, train_student
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.folder import count_parameters
from distill_tasks.students.transformer import TransformerSettings

logger = logging.getLogger("potstill")

PROBE_STEPS = 20
PROBE_ROWS = 2048
"""Of the training set, those from which a student of another family learns."""
WARM_STEPS = 2
"""The first ones are not timed."""
COURSE = {"learning_rate", "epochs", "patience_epochs"}
"""What a step's time does not depend on."""


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

    def __init__(self, told: Iterable[TrainingStep]) -> None:
        self.times: dict[int, float] = {}
        for step in told:  # the same one may be told again, with its accuracy
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
            shape = digest(student.model_dump(exclude=COURSE))
            if shape not in probes:
                logger.info("plan: a few steps of %s", student.name)
                probes[shape] = _try(student, training_set, ProgressFile(scratch, student.name))
            planned.append(estimate_student(student, probes[shape], len(training_set.rows)))
    return planned


def bound_minutes(config: DistillConfig, planned: list[Planned]) -> float:
    """Return the minutes that all trainings take at most.

    That is the grid, and the further seeds and the controls of as many finalists as there may be,
    those that take longest. Halving takes less.
    """
    further = [
        one.minutes * len(further_trials(config, student))
        for student, one in zip(config.students, planned, strict=True)
    ]
    longest = sorted(further, reverse=True)[: config.evaluate.finalists]
    return sum(one.minutes for one in planned) + sum(longest)


def _make_training_set(config: DistillConfig, corpus: Corpus, scratch: Path) -> TrainingSet:
    """Return a training set with random answers, none of its files outside ``scratch``."""
    start, rows, classes = config.teacher.start, corpus.training_rows, corpus.classes
    teacher = TeacherReference("planned", classes, start, 0.0, [], reused=False)
    shape = len(rows), len(classes)
    logits = np.random.default_rng(config.seed).normal(size=shape).astype(np.float32)
    labels = SoftLabelStore(str(scratch / "labels"), teacher.digest, classes)
    labels.add(rows.texts, logits)
    run = OpenRun(config, corpus, teacher, labels, config.loss.usual_objective)
    return replace(make_training_set(run, config.seed), work_dir=scratch)


def _try(student: StudentConfig, training_set: TrainingSet, progress: ProgressFile) -> Probe:
    """Train a student on some rows for one epoch.

    The rows are drawn from the whole training set. Its own first batches would be the longest:
    on R8 their steps are a third longer than the mean one.
    """
    rows = PROBE_ROWS
    if isinstance(student, TransformerSettings):
        rows = PROBE_STEPS * student.batch_rows * student.accumulated_batches
    drawn = np.random.default_rng(training_set.seed).permutation(len(training_set.rows))[:rows]
    part = take(training_set, np.sort(drawn))
    # Without gold on validation nothing is scored.
    nothing = Split(part.rows.texts[:1], np.full_like(part.rows.gold[:1], NO_LABEL))
    part = replace(part, validation=nothing, progress=progress)
    once = student.model_copy(update={"epochs": 1} if hasattr(student, "epochs") else {})
    with progress.told():
        probe = _train(once, part, progress)
        # What does not tell its steps is timed as a whole, which the first time has imports in it.
        return probe if probe.steps else _train(once, part, progress)


def _train(student: StudentConfig, training_set: TrainingSet, progress: ProgressFile) -> Probe:
    """Train a student and throw it away."""
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        train_student(student, training_set, Path(folder))
        seconds = time.monotonic() - start
        parameters = count_parameters(Path(folder))
    pace = Pace(progress.read())
    return Probe(len(training_set.rows), parameters, seconds, pace.steps, pace.step_s)


def estimate_student(student: StudentConfig, probe: Probe, rows: int) -> Planned:
    """Return what a student takes that learns from so many rows."""
    at_least = probe.rows < rows and _keeps_words(student)
    if not probe.steps:
        seconds = probe.seconds * rows / probe.rows
        return Planned(student.name, probe.parameters, at_least, None, seconds / 60)
    steps = getattr(student, "epochs", 1) * math.ceil(probe.steps * rows / probe.rows)
    return Planned(student.name, probe.parameters, at_least, steps, steps * probe.step_s / 60)


def _keeps_words(student: StudentConfig) -> bool:
    """Return whether a student is the larger the more words there are in its training set."""
    if isinstance(student, BagOfWordsStudent):
        return not student.hashed
    return isinstance(student, LayersStudent) and student.vocabulary == "corpus"
