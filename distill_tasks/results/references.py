"""References to what a run made, small enough to travel: rows, teacher, answers, students."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distill_tasks.data.corpus import Corpus
from distill_tasks.data.report import DataReport
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.problems.classification import Logits
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.curve import Curve


@dataclass(frozen=True)
class TeacherReference:
    """The teacher of this run: its digest, its classes in logit order, and its weights if any."""

    digest: str
    classes: tuple[str, ...]
    model: Checkpoint | None
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
