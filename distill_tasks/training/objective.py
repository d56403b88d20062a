"""What students lower: the teacher's answers, softened, weighed against gold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Term = Literal["kl", "reverse_kl", "js", "dkd", "dist", "hidden", "relations"]
"""A distillation loss."""


HIDDEN_TERMS: tuple[Term, ...] = ("hidden", "relations")
"""The losses that need more than logits: whoever runs the models adds them."""


@dataclass(frozen=True)
class Objective:
    """What students lower: the teacher's answers, softened, weighed against gold where it is."""

    temperature: float
    alpha: float
    terms: Mapping[Term, float] = field(default_factory=lambda: {"kl": 1.0})
    """Weight of each distillation loss in their sum."""
    standardize: bool = False
    """Whether logits have mean 0 and deviation 1 in each row before they are compared."""
