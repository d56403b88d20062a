"""The production sample: whether a student still follows its teacher on what it will really see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import Logits, Problem
from distill_tasks.scoring.intervals import Figure, estimate
from distill_tasks.scoring.scorecard import EvalSplit, Predictions
from distill_tasks.scoring.statistics import mean

HISTOGRAM_BINS = 20
FEWEST_ROWS = 50
UNUSUAL_SHARE = 0.05
"""Share of held-out rows that count as unusual by definition: the least familiar ones."""


@dataclass(frozen=True)
class ProductionCheck:
    """A student on unlabelled production rows, beside held-out."""

    agreement: Figure
    """With the teacher, on production."""
    held_out_agreement: Figure
    out_of_distribution: Figure
    """Share of production rows less familiar to the student than 95 % of held-out."""
    confidence_edges: list[float]
    confidence: list[float]
    """Share of production rows in each bin of confidence."""
    held_out_confidence: list[float]

    @property
    def is_worse(self) -> bool:
        """Whether agreement is surely lower on production than on held-out."""
        return self.is_enough and self.agreement.high < self.held_out_agreement.low

    @property
    def is_foreign(self) -> bool:
        """Whether surely more rows are unusual than held-out would make one expect."""
        return self.is_enough and self.out_of_distribution.low > UNUSUAL_SHARE

    @property
    def is_enough(self) -> bool:
        """Whether there are rows enough to be sure of anything; few may all be alike by chance."""
        return self.agreement.rows >= FEWEST_ROWS


def check_production(
    held_out: EvalSplit, on_held_out: Predictions, production: EvalSplit, on_production: Predictions
) -> ProductionCheck:
    """Compare a student on production rows with the same student on held-out."""
    limit = np.quantile(familiarity(on_held_out.logits, held_out.problem), UNUSUAL_SHARE)
    unusual = familiarity(on_production.logits, production.problem) < limit
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    shares = [
        np.histogram(one.calibration.confidence(one.logits, eval_split.problem), edges)[0]
        / len(eval_split.split)
        for eval_split, one in ((production, on_production), (held_out, on_held_out))
    ]
    return ProductionCheck(
        agreement=_agree(production, on_production),
        held_out_agreement=_agree(held_out, on_held_out),
        out_of_distribution=estimate({"share": mean(unusual)}, len(unusual), 0)["share"],
        confidence_edges=edges.tolist(),
        confidence=shares[0].tolist(),
        held_out_confidence=shares[1].tolist(),
    )


def familiarity(logits: Logits, problem: Problem) -> NDArray[np.float64]:
    """Return how familiar each row (rows,) looks to a model: its negative energy.

    Source: Liu, Wang, Owens, Li 2020, "Energy-based Out-of-distribution Detection"; for several
    labels Wang et al. 2021, "Can multi-label classification networks know what they don't know?"
    """
    wide = logits.astype(np.float64)
    if problem == "single_label":
        energy: NDArray[np.float64] = np.logaddexp.reduce(wide, axis=1)
        return energy
    joint: NDArray[np.float64] = np.logaddexp(0, wide).sum(axis=1)
    return joint


def _agree(eval_split: EvalSplit, predictions: Predictions) -> Figure:
    agreed = (eval_split.decide(predictions) == eval_split.decide(eval_split.teacher)).all(axis=1)
    return estimate({"agreement": mean(agreed)}, len(agreed), 0)["agreement"]
