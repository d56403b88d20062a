"""The lesson: all that a student of any family learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distill_tasks.corpus import Split
from distill_tasks.problem import Problem
from distill_tasks.soft_labels import SoftLabels

Term = Literal["kl", "reverse_kl", "js", "dkd", "dist", "hidden", "relations"]
"""A distillation loss."""


INSIDE: tuple[Term, ...] = ("hidden", "relations")
"""The losses that need more than logits: whoever runs the models adds them."""


@dataclass(frozen=True)
class Blend:
    """What students lower: the teacher's answers, softened, weighed against gold where it is."""

    temperature: float
    alpha: float
    terms: Mapping[Term, float] = field(default_factory=lambda: {"kl": 1.0})
    """Weight of each distillation loss in their sum."""
    standardize: bool = False
    """Whether logits have mean 0 and deviation 1 in each row before they are compared."""


@dataclass(frozen=True)
class Lesson:
    """Rows with the teacher's answers, and how to weigh the two."""

    rows: Split
    """What to learn from; gold is -1 where absent."""
    soft_labels: SoftLabels
    """The teacher's logits (rows, classes) for these rows."""
    validation: Split
    classes: tuple[str, ...]
    blend: Blend
    seed: int
    teacher: TeacherModel | None
    """The weights to start from: the teacher's own, absent where it has none here."""
    problem: Problem = "single_label"
    class_weights: NDArray[np.float32] | None = None
    """Weight of each class (classes,) in the cross-entropy of gold; None where all weigh one."""
    share: float = 1.0
    """Of all training steps, those to take now; the others may follow later."""
    work_dir: Path | None = None
    """Where what trainings share is kept; None keeps nothing."""


@dataclass(frozen=True)
class TeacherModel:
    """Where the teacher's weights lie and how much text it reads."""

    model: str | Path
    revision: str | None
    max_length: int
