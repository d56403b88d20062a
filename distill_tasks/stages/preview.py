"""What labelling would cost, and how the teacher answers a few rows, before all are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.config import DistillConfig
from distill_tasks.data.corpus import Corpus
from distill_tasks.results.teacher import teacher_context

if TYPE_CHECKING:
    from distill_tasks.llm.estimate import Estimate
    from distill_tasks.teachers.base import Tried

SMOKE_ROWS = 16
"""Rows that show how a teacher answers."""


@dataclass(frozen=True)
class Smoke:
    """How a teacher answers a few rows of train and transfer: the first of the sample, or any."""

    shown: str
    """What it was asked about the first of them."""
    rows: list[Tried]


def estimate_labels(config: DistillConfig, corpus: Corpus) -> Estimate | None:
    """Return what the teacher's missing answers cost; None for a teacher that costs nothing."""
    return config.teacher.estimate(teacher_context(config, corpus))


def try_teacher(config: DistillConfig, corpus: Corpus) -> Smoke:
    """Ask the teacher about a few rows; its answers are kept as all others are."""
    context, texts = teacher_context(config, corpus), corpus.training_rows.texts
    order = np.random.default_rng(config.seed).permutation(len(texts))
    chosen = (context.sample or [texts[row] for row in order])[:SMOKE_ROWS]
    return Smoke(config.teacher.show(chosen[0], context), config.teacher.try_rows(chosen, context))
