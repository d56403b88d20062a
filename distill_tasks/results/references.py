"""References to a run's rows, teacher, answers and students, small enough to be passed on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from distill_tasks.core.digests import digest
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.report import DataReport
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.llm.label_prior import DividedLabels, PriorChoice
from distill_tasks.problems.classification import Logits
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.curve import Curve

TEACHER = "teacher"
"""The teacher's name among the models of a run."""


@dataclass(frozen=True)
class TeacherReference:
    """The teacher of this run: its digest, its classes in logit order, and its weights if any."""

    digest: str
    classes: tuple[str, ...]
    model: Checkpoint | None
    seconds: float
    curve: list[Curve]
    reused: bool
    identity: str = ""
    """What asking it told that its answers depend on."""


@dataclass(frozen=True)
class LabelsReference:
    """The stored answers of the teacher to the rows that it labels."""

    root: str
    teacher: str
    classes: tuple[str, ...]
    asked: int
    """Rows that the teacher had to answer in this run."""
    seconds: float
    """Time spent on this teacher's answers, including earlier runs."""
    reused: bool
    prior: PriorChoice | None = None
    """Whether they are divided by the label prior as they are read; None: nobody compared."""

    def open(self) -> SoftLabelStore:
        """Read the store."""
        if self.prior is None or not self.prior.divide:
            return SoftLabelStore(self.root, self.teacher, self.classes)
        return DividedLabels(self.root, self.teacher, self.classes, self.prior)


@dataclass(frozen=True)
class CorpusReference:
    """The stored corpus of checked rows."""

    digest: str
    folder: Path
    report: DataReport
    reused: bool
    whole: Path | None = None
    """The folder of the corpus before rows left it; None if none has left."""

    @classmethod
    def keep(cls, store: Store, corpus: Corpus, report: DataReport) -> CorpusReference:
        """Keep a corpus in the store, if it is not there."""
        key = digest(corpus.digest, [asdict(finding) for finding in corpus.findings])
        reused = store.manifest("corpus", key) is not None
        if not reused:
            with store.build("corpus", key, {"classes": list(corpus.classes)}) as draft:
                corpus.save(draft)
        return cls(corpus.digest, store.folder("corpus", key), report, reused)

    def open(self) -> Corpus:
        """Read the corpus."""
        return Corpus.open(self.folder)


@dataclass(frozen=True)
class StudentReference:
    """A trained student, with the folder that is measured and served."""

    name: str
    student: str
    """Name in the grid, without seed and variant."""
    candidate: str
    """Name of student and variant, without the seed."""
    variant: str
    """How it is served: by `torch` or `numpy` as trained, or as one of `Variant`."""
    seed: int
    distilled: bool
    """False for a control: trained on gold alone, or the teacher itself in another form."""
    trained: str
    """Digest of the training; variants and calibrations of one training share its time."""
    digest: str
    folder: Path
    calibration: Calibration
    parameters: int
    disk_mb: float
    seconds: float
    curve: list[Curve]
    reused: bool

    @property
    def is_teacher(self) -> bool:
        """Whether it is no student but the teacher itself, exported."""
        return self.student == TEACHER

    @property
    def served(self) -> bool:
        """Whether this seed represents its candidate in the registry."""
        return self.name == self.candidate


@dataclass(frozen=True)
class PartOfTraining:
    """A student whose training was stopped at a rung."""

    share: float
    """The share of its training that it has had."""
    folder: Path
    validation: Logits
    """Its logits for the validation rows (rows, classes)."""
    seconds: float
    """Time spent on it so far."""
