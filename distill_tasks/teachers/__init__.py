"""Teachers: one file for each kind, its configuration beside its code, behind `Teacher`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distill_tasks.teachers.base import Teacher
from distill_tasks.teachers.causal_lm import CausalLmTeacher
from distill_tasks.teachers.finetune import FinetuneTeacher
from distill_tasks.teachers.saved import SavedTeacher
from distill_tasks.teachers.sequence_classifier import TransformersTeacher

TeacherConfig = Annotated[
    FinetuneTeacher | TransformersTeacher | SavedTeacher | CausalLmTeacher,
    Field(discriminator="kind"),
]

__all__ = ["Teacher", "TeacherConfig"]
