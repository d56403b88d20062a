"""The lesson: all that a student of any family learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill_tasks.corpus import Split
from distill_tasks.problem import Problem
from distill_tasks.soft_labels import SoftLabels


@dataclass(frozen=True)
class Lesson:
    """Rows with the teacher's answers, and how to weigh the two."""

    rows: Split
    """What to learn from; gold is -1 where absent."""
    soft_labels: SoftLabels
    """The teacher's logits (rows, classes) for these rows."""
    validation: Split
    classes: tuple[str, ...]
    temperature: float
    alpha: float
    seed: int
    teacher: TeacherModel | None
    """The weights to start from: the teacher's own, absent where it has none here."""
    problem: Problem = "single_label"
    class_weights: NDArray[np.float32] | None = None
    """Weight of each class (classes,) in the cross-entropy of gold; None where all weigh one."""


@dataclass(frozen=True)
class Blend:
    """How the teacher's answers are softened, and weighed against gold where a row has it."""

    temperature: float
    alpha: float


@dataclass(frozen=True)
class TeacherModel:
    """Where the teacher's weights lie and how much text it reads."""

    model: str | Path
    revision: str | None
    max_length: int
