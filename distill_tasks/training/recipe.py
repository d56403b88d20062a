"""The recipe of one training: the user's settings, the objective, and how much to do now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import Problem
from distill_tasks.training.objective import Objective


class CourseSettings(Protocol):
    """The settings that users can make for the training of a student or a teacher."""

    @property
    def epochs(self) -> int:
        """Passes over the rows, at most."""

    @property
    def batch_rows(self) -> int:
        """Rows in one forward and backward pass."""

    @property
    def accumulated_batches(self) -> int:
        """Batches whose gradients are accumulated for one step."""

    @property
    def patience_epochs(self) -> int | None:
        """Epochs without a better validation loss before training stops."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one training; the objective is used only if there are teacher logits."""

    epochs: int
    learning_rate: float
    batch_rows: int
    max_length: int
    seed: int
    objective: Objective | None = None
    problem: Problem = "single_label"
    class_weights: NDArray[np.float32] | None = None
    patience_epochs: int | None = None
    """Stop after so many epochs without a better validation loss, and keep the best epoch."""
    accumulated_batches: int = 1
    """Batches whose gradients are accumulated for one step."""
    share: float = 1.0
    """Share of all steps to take now; a later call with a greater share continues from there."""

    @classmethod
    def of(
        cls,
        course: CourseSettings,
        *,
        learning_rate: float,
        max_length: int,
        seed: int,
        problem: Problem,
        class_weights: NDArray[np.float32] | None,
        objective: Objective | None = None,
        share: float = 1.0,
    ) -> Recipe:
        """Return the recipe of a training with a user's settings."""
        return cls(
            epochs=course.epochs,
            batch_rows=course.batch_rows,
            accumulated_batches=course.accumulated_batches,
            patience_epochs=course.patience_epochs,
            learning_rate=learning_rate,
            max_length=max_length,
            seed=seed,
            problem=problem,
            class_weights=class_weights,
            objective=objective,
            share=share,
        )

    def split_batch(self) -> Recipe:
        """Return the recipe of the same steps with half the rows, or fewer if odd, in a batch."""
        parts = next(n for n in range(2, self.batch_rows + 1) if self.batch_rows % n == 0)
        return replace(
            self,
            batch_rows=self.batch_rows // parts,
            accumulated_batches=parts * self.accumulated_batches,
        )
