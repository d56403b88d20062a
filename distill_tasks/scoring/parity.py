"""Parity: whether a variant answers like the model that it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill_tasks.scoring.intervals import Figure, estimate
from distill_tasks.scoring.scorecard import EvalSplit, Predictions, quality_statistic
from distill_tasks.scoring.statistics import difference

ROUNDING = 1e-3
"""Largest difference of a logit that another runtime's float32 may make."""


@dataclass(frozen=True)
class Parity:
    """How far a variant differs from its reference, on the same rows and seeds."""

    variant: str
    largest_logit_difference: float
    flips: int
    """Answers with another label."""
    answers: int
    """Rows times seeds."""
    change: Figure
    """Quality of the variant minus its reference's."""

    def __str__(self) -> str:
        return (
            f"{self.change.points} against torch, {self.flips} of {self.answers:,} answers "
            f"differ, logits by at most {self.largest_logit_difference:.2g}"
        )

    def why_rejected(self, allowed_drop: float) -> str:
        """Return why the variant may not compete, or an empty string."""
        if self.variant == "onnx":
            found = self.largest_logit_difference
            off = f"its logits differ from torch's by up to {found:.2g}, more than {ROUNDING:g}"
            return f"rejected: {off}" if not found <= ROUNDING else ""
        if self.change.high < -allowed_drop:
            allowed = f"more than the {100 * allowed_drop:g} points allowed"
            return f"rejected: loses {allowed}, {self.change.points} against torch"
        return ""


def compare_to_reference(
    eval_split: EvalSplit,
    variant: str,
    ours: Sequence[Predictions],
    reference: Sequence[Predictions],
    seed: int,
) -> Parity:
    """Compare the answers of a variant with those of its reference, seed by seed."""
    pairs = list(zip(ours, reference, strict=True))
    gaps = [np.abs(one.logits - other.logits).max() for one, other in pairs]
    flips = [
        (eval_split.decide(one) != eval_split.decide(other)).any(axis=1).sum()
        for one, other in pairs
    ]
    change = difference(
        quality_statistic(eval_split, ours), quality_statistic(eval_split, reference)
    )
    rows = len(eval_split.split)
    return Parity(
        variant=variant,
        largest_logit_difference=float(np.max(gaps)),
        flips=int(sum(flips)),
        answers=rows * len(pairs),
        change=estimate({"change": change}, rows, seed)["change"],
    )
