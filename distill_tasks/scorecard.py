"""The scorecard: what a model is worth on gold labels and against the teacher."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_tasks import metrics
from distill_tasks.corpus import Split
from distill_tasks.errors import PotstillError, shortlist
from distill_tasks.intervals import Figure, Statistic, estimate


@dataclass(frozen=True)
class Scorecard:
    """Every quality figure of one model on one split, with its interval."""

    split: str
    figures: dict[str, Figure]
    per_class: list[dict[str, Any]]

    @property
    def accuracy(self) -> Figure:
        """Accuracy on gold; agreement with the teacher where the split has no gold."""
        return self.figures.get("quality/accuracy") or self.figures["fidelity/agreement"]

    @property
    def values(self) -> dict[str, float]:
        """The figures without their intervals, by metric name."""
        return {name: figure.value for name, figure in self.figures.items()}

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Scorecard:
        """Return the scorecard that was saved."""
        figures = {name: Figure(**figure) for name, figure in saved["figures"].items()}
        return cls(saved["split"], figures, saved["per_class"])


def score(
    name: str,
    split: Split,
    split_name: str,
    student: NDArray[np.float32],
    teacher: NDArray[np.float32],
    classes: tuple[str, ...],
    seed: int = 0,
) -> Scorecard:
    """Score logits (rows, classes) on a split against its gold labels and the teacher's logits.

    Gold figures are absent, not zero, where the split has no gold. Raises PotstillError for NaN.
    """
    broken = np.flatnonzero(~np.isfinite(student).all(axis=1))
    if broken.size:
        raise PotstillError(
            f"{name} answered NaN or infinity in {broken.size} of {len(split)} rows of "
            f"{split_name} (row {shortlist(broken)}). Lower its learning rate."
        )
    said, teacher_said = student.argmax(axis=1), teacher.argmax(axis=1)
    statistics: dict[str, Statistic] = {
        "fidelity/agreement": metrics.share(said == teacher_said),
        "fidelity/kl": metrics.mean_divergence(student, teacher),
    }
    if split.has_gold:
        right, teacher_right = said == split.gold, teacher_said == split.gold
        statistics |= {
            "quality/accuracy": metrics.share(right),
            "quality/macro_f1": metrics.macro_f1(split.gold, said, len(classes)),
            "fidelity/retention": metrics.ratio_of_shares(right, teacher_right),
            "calibration/ece": metrics.calibration_error(student, split.gold),
        }
    table = metrics.per_class(split.gold, said, classes) if split.has_gold else []
    return Scorecard(split_name, estimate(statistics, len(split), seed), table)
