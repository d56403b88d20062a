"""References to what a run made, small enough to travel: rows, teacher, answers, students."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.config import DistillConfig
from distill_tasks.core.errors import NothingQualifiesError, say_error, stop_if_disk_full
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.report import DataReport
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.problems.classification import Logits
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.students import StudentConfig
from distill_tasks.training.checkpoint import TeacherModel

if TYPE_CHECKING:
    from distill_tasks.training.trainer import Curve


logger = logging.getLogger("potstill")


@dataclass(frozen=True)
class TeacherReference:
    """The teacher of this run: its digest, its classes in logit order, and its weights if any."""

    digest: str
    classes: tuple[str, ...]
    model: TeacherModel | None
    seconds: float
    curve: list[Curve]
    reused: bool


@dataclass(frozen=True)
class LabelsReference:
    """Where the teacher's answers to all rows of the corpus lie."""

    root: str
    teacher: str
    classes: tuple[str, ...]
    asked: int
    """Rows that had to be asked in this run."""
    seconds: float
    """Spent on this teacher's answers, earlier runs included."""
    reused: bool

    def open(self) -> SoftLabelStore:
        """Read the store."""
        return SoftLabelStore(self.root, self.teacher, self.classes)


@dataclass(frozen=True)
class CorpusReference:
    """Where the checked rows of this run lie."""

    digest: str
    folder: Path
    report: DataReport
    reused: bool

    def open(self) -> Corpus:
        """Read the corpus."""
        return Corpus.open(self.folder)


@dataclass(frozen=True)
class Trial:
    """One training of a student: from a seed, with the teacher or, as a control, without."""

    student: StudentConfig
    seed: int
    distilled: bool = True
    served: bool = True
    """Whether this is the one of its seeds that is served."""

    @property
    def name(self) -> str:
        """Return a name unique within a run; the served one has its candidate's."""
        name = self.student.name if self.distilled else f"{self.student.name}-on-gold"
        return name if self.distilled and self.served else f"{name}-seed-{self.seed}"


@dataclass(frozen=True)
class StudentReference:
    """A trained student: the folder that is measured and served."""

    name: str
    student: str
    """Name in the grid, whatever the seed and variant."""
    candidate: str
    """Name whatever the seed."""
    variant: str
    """How it is served: `torch` or `numpy` as it was trained, or one of `Variant`."""
    seed: int
    distilled: bool
    """False for a control, which learnt from gold alone."""
    trained: str
    """Digest of the training: seeds, variants and calibrations of the same one share its time."""
    digest: str
    folder: Path
    calibration: Calibration
    parameters: int
    disk_mb: float
    seconds: float
    curve: list[Curve]
    reused: bool

    @property
    def served(self) -> bool:
        """Whether this is the one that stands for its candidate in the registry."""
        return self.name == self.candidate


@dataclass(frozen=True)
class PartOfTraining:
    """A student stopped on its way."""

    share: float
    """Of its training, what it had."""
    folder: Path
    validation: Logits
    """What it says of the validation rows (rows, classes)."""
    seconds: float
    """Spent on it so far."""


@dataclass(frozen=True)
class Grid:
    """What was trained so far, and what could not be."""

    students: list[StudentReference]
    failed: dict[str, str]
    """Why a student is absent, by its name."""

    def learn(self, trials: list[Trial], train: Callable[[Trial], StudentReference]) -> Grid:
        """Return the grid with further trials; a student of which one fails leaves it.

        Raises NothingQualifiesError if none is left.
        """
        students, failed = [*self.students], dict(self.failed)
        for trial in trials:
            name = trial.student.name
            if name in failed:
                continue
            try:
                students.append(train(trial))
            except Exception as error:  # noqa: BLE001  # one that crashes must not end the night
                stop_if_disk_full(error)
                failed[name] = f"its training failed: {trial.name}: {say_error(error)}"
                logger.warning("train %s: left out, %s", name, failed[name])
        whole = [student for student in students if student.student not in failed]
        if not whole:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            raise NothingQualifiesError(f"No student could be trained. {reasons}")
        return Grid(whole, failed)


def first_trials(config: DistillConfig) -> list[Trial]:
    """Return one trial of every student of the grid, from the configured seed."""
    return [Trial(student, config.seed) for student in config.students]


def further_trials(config: DistillConfig, finalists: list[str]) -> list[Trial]:
    """Return the other seeds of the finalists, and their controls, seed by seed."""
    trials = []
    for student in config.students:
        if student.name not in finalists:
            continue
        seeds = [config.seed + number for number in range(config.evaluate.seeds)]
        if not student.in_steps:
            seeds = seeds[:1]
        trials += [Trial(student, seed, served=False) for seed in seeds[1:]]
        if config.evaluate.controls and config.data.label_column is not None:
            trials += [Trial(student, seed, distilled=False, served=False) for seed in seeds]
    return trials
