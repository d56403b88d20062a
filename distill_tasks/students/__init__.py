"""Students: one file for each family, its configuration beside its code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distill_tasks.students import bag_of_words, layers, pretrained, static
from distill_tasks.students.bag_of_words import BagOfWordsStudent
from distill_tasks.students.layers import LayersStudent
from distill_tasks.students.pretrained import PretrainedStudent
from distill_tasks.students.static import StaticStudent

if TYPE_CHECKING:
    from distill_tasks.students.base import TrainingSet
    from distill_tasks.training.trainer import Curve

StudentConfig = Annotated[
    LayersStudent | PretrainedStudent | StaticStudent | BagOfWordsStudent,
    Field(discriminator="family"),
]


def train_student(config: StudentConfig, training_set: TrainingSet, folder: Path) -> list[Curve]:
    """Train a student of any family into ``folder`` and return its training curve."""
    match config:
        case LayersStudent():
            return layers.train(config, training_set, folder)
        case PretrainedStudent():
            return pretrained.train(config, training_set, folder)
        case StaticStudent():
            return static.train(config, training_set, folder)
        case BagOfWordsStudent():
            return bag_of_words.train(config, training_set, folder)


def needs_teacher_weights(config: StudentConfig) -> bool:
    """Return whether a student starts from the teacher's own weights."""
    return isinstance(config, LayersStudent | StaticStudent)


def digest_start(config: StudentConfig) -> str | None:
    """Return the digest of the model that a student brings itself; None where it brings none."""
    return pretrained.digest_start(config) if isinstance(config, PretrainedStudent) else None


__all__ = [
    "BagOfWordsStudent",
    "LayersStudent",
    "PretrainedStudent",
    "StaticStudent",
    "StudentConfig",
    "digest_start",
    "needs_teacher_weights",
    "train_student",
]
