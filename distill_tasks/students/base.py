"""The training set: all that a student of any family learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.progress import ProgressFile
from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.problems.classification import Problem
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective


@dataclass(frozen=True)
class TrainingSet:
    """Rows with the teacher's answers, and how to weigh the two."""

    rows: Split
    """What to learn from; gold is -1 where absent."""
    soft_labels: SoftLabels
    """The teacher's logits (rows, classes) for these rows."""
    validation: Split
    classes: tuple[str, ...]
    objective: Objective
    seed: int
    teacher: Checkpoint | None
    """The weights to start from: the teacher's own, absent where it has none here."""
    problem: Problem = "single_label"
    class_weights: NDArray[np.float32] | None = None
    """Weight of each class (classes,) in the cross-entropy of gold; None where all weigh one."""
    share: float = 1.0
    """Of all training steps, those to take now; the others may follow later."""
    work_dir: Path | None = None
    """Where what trainings share is kept; None keeps nothing."""
    progress: ProgressFile | None = None
    """Told how far the training is; None tells nobody."""
