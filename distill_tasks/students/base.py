"""What every family of students is, and the training set that all of them learn from."""

from __future__ import annotations

import re
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
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT_STEPS, SHORT_ROWS = 20, 2048
"""Length of a short training: in steps if the batch size is known, else in rows."""

DEFAULT_MAX_LENGTH = 256
"""Tokens read of each text if neither the student nor the teacher sets a number."""


@dataclass(frozen=True)
class TrainingSet:
    """Rows with the teacher's answers, and how to weigh the two."""

    rows: Split
    """The rows to learn from; gold is -1 where absent."""
    soft_labels: SoftLabels
    """The teacher's logits (rows, classes) for these rows."""
    validation: Split
    classes: tuple[str, ...]
    objective: Objective
    seed: int
    teacher: Checkpoint | None
    """The weights to start from: the teacher's own; None if it has no weights here."""
    problem: Problem = "single_label"
    class_weights: NDArray[np.float32] | None = None
    """Weight of each class (classes,) in the cross-entropy of gold; None if all are one."""
    share: float = 1.0
    """Share of all training steps to take now; the others may follow in a later call."""
    work_dir: Path | None = None
    """Folder for files that trainings share, such as token ids; None keeps nothing."""
    progress: ProgressFile | None = None
    """Where the training writes its progress; None writes nothing."""


@dataclass(frozen=True)
class ShortTraining:
    """A shortened training of a student, by which the time of each step is measured."""

    student: Student
    rows: int
    """The number of rows that it learns from."""
    times: int
    """How many times longer the whole training of these rows takes."""


class Student(Settings, ABC):
    """The settings of one student of some family, and everything other packages need of it.

    A family defines `train`, and overrides what else differs.
    """

    size_field: ClassVar[str]
    """The field with the size of a student, which its name contains."""
    training_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that concern training alone and do not change the shape of the served model."""
    course_fields: ClassVar[frozenset[str]] = frozenset()
    """The training fields that do not change the time of one training step."""
    runtime: ClassVar[Literal["torch", "numpy"]] = "numpy"
    """What serves it as it was trained."""
    in_rungs: ClassVar[bool] = False
    """Whether training can be stopped on the way, for halving to compare students there."""

    @property
    def name(self) -> str:
        """A name unique within a grid: family, size, then every field that is not its default."""
        fields = type(self).model_fields
        others = [
            f"{field}-{_say(getattr(self, field))}"
            for field, info in fields.items()
            if field not in ("family", self.size_field) and getattr(self, field) != info.default
        ]
        size = getattr(self, self.size_field)
        return "-".join([fields["family"].default, str(size), *others]).replace("_", "-")

    @property
    def needs_teacher_weights(self) -> bool:
        """Whether it starts from the teacher's own weights."""
        return False

    @property
    def in_steps(self) -> bool:
        """Whether training takes random steps; without them a second seed changes nothing."""
        return True

    @property
    def trains_in_seconds(self) -> bool:
        """Whether it is cheap enough to be trained many times, to tune settings for all."""
        return False

    @property
    def reads_as_teacher(self) -> bool:
        """Whether it is a transformer that reads the same tokens as its teacher."""
        return False

    @property
    def grows_with_words(self) -> bool:
        """Whether its size grows with the number of words in its training set."""
        return False

    @property
    def shape(self) -> str:
        """The digest of the settings that decide its served shape, without those of training."""
        return self._digest_without(self.training_fields)

    @property
    def pace(self) -> str:
        """The digest of the settings that decide the time of one training step."""
        return self._digest_without(self.course_fields)

    @property
    def short_training(self) -> ShortTraining:
        """A training of a few steps, each as long as a step of the whole training."""
        return ShortTraining(self, SHORT_ROWS, 1)

    def own_start(self, teacher: Checkpoint | None) -> Checkpoint | None:  # noqa: ARG002
        """Return the checkpoint that it starts from; None if it starts from the teacher's."""
        return None

    def check_own_start(self, teacher: Checkpoint | None) -> None:
        """Raise InputError unless it can be made from the checkpoint of `own_start`."""

    @classmethod
    def check_teacher(
        cls,
        students: Sequence[Self],
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        terms: Collection[str],
    ) -> None:
        """Raise InputError unless students of this family can be made from a teacher.

        ``terms`` are the distillation losses that they are trained with.
        """

    def check_memory(self, texts: Sequence[str], classes: int, most_gb: float) -> None:
        """Raise InputError if training on these texts takes more than ``most_gb`` of memory."""

    @abstractmethod
    def train(self, training_set: TrainingSet, folder: Path) -> list[Curve]:
        """Train the student into ``folder``, as it is served, and return its training curve."""

    def open_stopped(self, folder: Path) -> Answering:
        """Open a student whose training was stopped, to compare it with others at that point."""
        return open_model(folder)

    def _digest_without(self, fields: Collection[str]) -> str:
        return digest(self.model_dump(exclude=set(fields)))


def name_model(model: str) -> str:
    """Return the last part of a model's path or id, as it appears in a student's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", Path(model).resolve().name).strip("-") or "model"


def _say(value: float | str | bool | None) -> str:
    """Return a setting as it appears in a student's name."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def find_loss(
    student: torch.Tensor, training_set: TrainingSet, rows: NDArray[np.int64] | slice = slice(None)
) -> torch.Tensor:
    """Return the distillation loss of logits (rows, classes) for some rows of a training set."""
    import torch

    from distill_tasks.training.losses import distillation_loss

    answers, weights = training_set.soft_labels, training_set.class_weights
    return distillation_loss(
        student,
        torch.from_numpy(answers.logits[rows]).to(student),
        torch.from_numpy(training_set.rows.gold[rows]),
        training_set.objective,
        None if weights is None else torch.from_numpy(weights).to(student),
        None if answers.weights is None else torch.from_numpy(answers.weights[rows]).to(student),
    )
