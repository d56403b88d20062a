"""What every family of students is, and the training set that all of them learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.digests import digest
from distill_tasks.core.progress import ProgressFile
from distill_tasks.core.settings import Settings
from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.problems.classification import Answering, Problem
from distill_tasks.serving.served_model import open_model
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.curve import Curve
from distill_tasks.training.objective import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT_STEPS, SHORT_ROWS = 20, 2048
"""Length of a short training: its steps where the rows of one are known, else its rows."""


@dataclass(frozen=True)
class TrainingSet:
    """Rows with the teacher's answers, and how to weigh the two."""

    rows: Split
    """What to learn from; gold is -1 where absent."""
    soft_labels: SoftLabels
    """The teacher's logits (rows, classes) for these rows."""
    validation: Split
    classes: tuple[str, ...]
    objective: Objective
    seed: int
    teacher: Checkpoint | None
    """The weights to start from: the teacher's own, absent where it has none here."""
    problem: Problem = "single_label"
    class_weights: NDArray[np.float32] | None = None
    """Weight of each class (classes,) in the cross-entropy of gold; None where all weigh one."""
    share: float = 1.0
    """Of all training steps, those to take now; the others may follow later."""
    work_dir: Path | None = None
    """Where what trainings share is kept; None keeps nothing."""
    progress: ProgressFile | None = None
    """Told how far the training is; None tells nobody."""


@dataclass(frozen=True)
class ShortTraining:
    """A training of a student that is cut short, to see how long each of its steps takes."""

    student: Student
    rows: int
    """From how many rows it learns."""
    times: int
    """How often the whole training goes over its rows while this one does once."""


class Student(Settings, ABC):
    """One student of some family: its settings, and all that others ask of it.

    A family defines `train`, and of the rest what differs for it.
    """

    size_field: ClassVar[str]
    """The field that tells this family's students apart by size."""
    training_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields about training alone: what is served has the same shape whatever they say."""
    course_fields: ClassVar[frozenset[str]] = frozenset()
    """Those of them that the time of one training step does not depend on."""
    runtime: ClassVar[Literal["torch", "numpy"]] = "numpy"
    """What serves it as it was trained."""
    in_rungs: ClassVar[bool] = False
    """Whether training can be stopped on the way, for halving to compare students there."""
    needs_teacher_weights: ClassVar[bool] = False
    """Whether it starts from the teacher's own weights."""

    @property
    def name(self) -> str:
        """Return a name unique within a grid: family, size, then every field not at its default."""
        fields = type(self).model_fields
        others = [
            f"{field}-{_say(getattr(self, field))}"
            for field, info in fields.items()
            if field not in ("family", self.size_field) and getattr(self, field) != info.default
        ]
        size = getattr(self, self.size_field)
        return "-".join([fields["family"].default, str(size), *others]).replace("_", "-")

    @property
    def in_steps(self) -> bool:
        """Whether training takes random steps; one that sees all rows needs no second seed."""
        return True

    @property
    def trains_in_seconds(self) -> bool:
        """Whether it may be trained many times over, to try settings that others then share."""
        return False

    @property
    def reads_as_teacher(self) -> bool:
        """Whether it is a transformer that reads the very tokens its teacher reads."""
        return False

    @property
    def grows_with_words(self) -> bool:
        """Whether it is the larger the more words there are in its training set."""
        return False

    @property
    def shape(self) -> str:
        """The digest of what decides how it is served, the course of its training left out."""
        return self._digest_without(self.training_fields)

    @property
    def pace(self) -> str:
        """The digest of what decides how long one of its training steps takes."""
        return self._digest_without(self.course_fields)

    @property
    def short_training(self) -> ShortTraining:
        """The first few steps, each as long as those of the whole training."""
        return ShortTraining(self, SHORT_ROWS, 1)

    def own_start(self, teacher: Checkpoint | None) -> Checkpoint | None:  # noqa: ARG002
        """Return the checkpoint that it brings itself, None where it starts from the teacher's."""
        return None

    def check_own_start(self, teacher: Checkpoint | None) -> None:
        """Raise InputError unless it can be made of the checkpoint that it brings itself."""

    @classmethod
    def check_teacher(
        cls,
        students: Sequence[Self],
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        terms: Collection[str],
    ) -> None:
        """Raise InputError unless students of this family can be made of a teacher.

        ``terms`` are the distillation losses that they lower.
        """

    def check_memory(self, texts: Sequence[str], classes: int, most_gb: float) -> None:
        """Raise InputError if training on some texts takes more memory than there is."""

    @abstractmethod
    def train(self, training_set: TrainingSet, folder: Path) -> list[Curve]:
        """Train the student into ``folder``, as it is served, and return its training curve."""

    def open_stopped(self, folder: Path) -> Answering:
        """Open a student on its way, to be compared with others on theirs."""
        return open_model(folder)

    def _digest_without(self, fields: Collection[str]) -> str:
        return digest(self.model_dump(exclude=set(fields)))


def _say(value: float | str | bool | None) -> str:
    """Return a setting as part of a name."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)
