"""The training objective of students: distillation losses weighted against gold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Term = Literal["kl", "reverse_kl", "js", "dkd", "dist", "hidden", "relations"]
"""A distillation loss."""


HIDDEN_TERMS: tuple[Term, ...] = ("hidden", "relations")
"""The losses that need internal states of both models; `OnlineTeacher` computes them."""


@dataclass(frozen=True)
class Objective:
    """The training objective of students: distillation losses weighted against gold."""

    temperature: float
    alpha: float
    terms: Mapping[Term, float] = field(default_factory=lambda: {"kl": 1.0})
    """The weight of each distillation loss in their sum."""
    standardize: bool = False
    """Whether logits are scaled to mean 0 and deviation 1 in each row before the comparison."""
