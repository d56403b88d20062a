"""The kinds of teacher that can answer without training, each alone or in an ensemble."""

from __future__ import annotations

from distill_tasks.teachers.api import ApiTeacher
from distill_tasks.teachers.callable import CallableTeacher
from distill_tasks.teachers.causal_lm import CausalLmTeacher
from distill_tasks.teachers.registered import RegisteredTeacher
from distill_tasks.teachers.saved import SavedTeacher
from distill_tasks.teachers.sequence_classifier import TransformersTeacher

ReadyTeacher = (
    TransformersTeacher
    | SavedTeacher
    | ApiTeacher
    | CausalLmTeacher
    | CallableTeacher
    | RegisteredTeacher
)
