"""Teachers: one file for each kind, its configuration beside its code, behind `Teacher`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distill_tasks.teachers.base import Teacher
from distill_tasks.teachers.ensemble import EnsembleTeacher
from distill_tasks.teachers.finetune import FinetuneTeacher
from distill_tasks.teachers.ready import ReadyTeacher

TeacherConfig = Annotated[
    FinetuneTeacher | ReadyTeacher | EnsembleTeacher, Field(discriminator="kind")
]

__all__ = ["Teacher", "TeacherConfig"]
