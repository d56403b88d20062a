"""The recipe of one training: what its user set, what it lowers, and how much of it to do now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import Problem
from distill_tasks.training.objective import Objective


class CourseSettings(Protocol):
    """What users set of a training, be it a student's or a teacher's."""

    @property
    def epochs(self) -> int:
        """Passes over the rows, at most."""

    @property
    def batch_rows(self) -> int:
        """Rows whose gradients are found at once."""

    @property
    def accumulated_batches(self) -> int:
        """Batches whose gradients make one step."""

    @property
    def patience_epochs(self) -> int | None:
        """Epochs without a better validation loss before it stops."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one training; the objective matters where teacher logits are given."""

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
    """Batches whose gradients make one step."""
    share: float = 1.0
    """Of all steps, those to take now; a later call with more goes on from there."""

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
        """Return the recipe of a training whose course a user has set."""
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
        """Return the recipe of the same steps in half the memory, or less where rows are odd."""
        parts = next(n for n in range(2, self.batch_rows + 1) if self.batch_rows % n == 0)
        return replace(
            self,
            batch_rows=self.batch_rows // parts,
            accumulated_batches=parts * self.accumulated_batches,
        )
