"""Teachers: one file for each kind, its configuration beside its code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distill_tasks.teachers import finetune, saved, sequence_classifier
from distill_tasks.teachers.finetune import FinetuneTeacher
from distill_tasks.teachers.saved import SavedTeacher
from distill_tasks.teachers.sequence_classifier import TransformersTeacher

if TYPE_CHECKING:
    from distill_tasks.data.corpus import Corpus

TeacherConfig = Annotated[
    FinetuneTeacher | TransformersTeacher | SavedTeacher, Field(discriminator="kind")
]


def digest_teacher(config: TeacherConfig, corpus: Corpus, seed: int, balanced: bool) -> str:
    """Return the digest of the teacher that a configuration names, made or not."""
    match config:
        case FinetuneTeacher():
            return finetune.digest_teacher(config, corpus, seed, balanced)
        case TransformersTeacher():
            return sequence_classifier.digest_teacher(config)
        case SavedTeacher():
            return saved.digest_teacher(config, corpus.problem)


__all__ = [
    "FinetuneTeacher",
    "SavedTeacher",
    "TeacherConfig",
    "TransformersTeacher",
    "digest_teacher",
]
