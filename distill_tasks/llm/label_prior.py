"""The label prior: what a teacher answers before it has read a text, and dividing by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.digests import digest
from distill_tasks.data.soft_labels import SoftLabels, SoftLabelStore
from distill_tasks.problems.classification import Logits, log_probabilities, to_decisions
from distill_tasks.scoring.calibration import fit_temperature
from distill_tasks.scoring.statistics import negative_log_likelihood

LEAST_PRIOR = 1e-6
"""A class that is never answered counts as answered so often."""
FEWEST_ROWS = 50
"""Rows of gold below which nothing is compared."""
SURE = 1.96
"""Standard errors that half a 95 % interval has."""
PRIOR_DIGITS = 6
"""Decimals of the prior, so that it is the same wherever it was added up."""


@dataclass(frozen=True)
class PriorChoice:
    """Whether dividing by the label prior fits gold better, each way at its best temperature."""

    prior: tuple[float, ...]
    """The probability of each class before a text is read."""
    rows: int
    """Rows of gold."""
    plain_nll: float
    """Negative log-likelihood of gold, the mean over rows."""
    divided_nll: float
    """The same of the distributions divided by the prior."""
    standard_error: float
    """That of the difference, whose rows are paired."""
    divide: bool
    """Whether it is surely better: the 95 % interval of the difference lies above zero."""

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return answers (rows, classes) divided by the prior if that is better.

        Zeros in all of a row, which stand for no answer, stay.
        """
        if not self.divide:
            return logits
        divided = divide_by_prior(logits, np.array(self.prior)).astype(np.float32)
        return np.where((logits == 0).all(axis=1, keepdims=True), logits, divided)

    def name_answers(self, teacher: str) -> str:
        """Return the digest of what `apply` makes of the answers of a teacher, by its digest."""
        return digest(teacher, "divided", self.prior) if self.divide else teacher


class DividedLabels(SoftLabelStore):
    """The answers of one teacher, kept as it gave them and divided by a prior as they are read."""

    def __init__(
        self, root: str, teacher: str, classes: Sequence[str], choice: PriorChoice
    ) -> None:
        super().__init__(root, teacher, classes)
        self.choice = choice

    def read(self, texts: Sequence[str]) -> SoftLabels:
        """Return the divided answers to texts, in their order; raise InputError as the store."""
        found = super().read(texts)
        return replace(found, logits=self.choice.apply(found.logits))


def estimate_prior(log_values: Logits) -> NDArray[np.float64]:
    """Return the mean probability of each class (classes,) over rows that need no gold.

    ``log_values`` are log-probabilities (rows, classes).
    """
    prior: NDArray[np.float64] = np.exp(log_values).mean(axis=0, dtype=np.float64)
    return prior.round(PRIOR_DIGITS)


def divide_by_prior(log_values: Logits, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-probabilities (rows, classes) over a prior (classes,), as log-probabilities again.

    Source: Zhao et al. 2021, "Calibrate Before Use"; Zhou et al. 2024, "Batch Calibration", for the
    prior over unlabelled rows.
    """
    return log_probabilities(log_values - np.log(np.maximum(prior, LEAST_PRIOR)), "single_label")


def choose_prior(
    log_values: Logits, gold: NDArray[np.int64], prior: NDArray[np.float64]
) -> PriorChoice:
    """Compare both ways on validation: log-probabilities (rows, classes) and gold (rows,).

    The prior comes from other rows than gold, of which there are `FEWEST_ROWS` or more, and a
    temperature is fitted to both ways alike.
    """
    plain = _losses(log_values, gold)
    divided = _losses(divide_by_prior(log_values, prior), gold)
    gain, rows = plain - divided, len(gold)
    error = float(gain.std(ddof=1) / np.sqrt(rows))
    return PriorChoice(
        prior=tuple(prior.tolist()),
        rows=rows,
        plain_nll=float(plain.mean()),
        divided_nll=float(divided.mean()),
        standard_error=error,
        divide=bool(gain.mean() > SURE * error),
    )


def _losses(log_values: Logits, gold: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the negative log-likelihood of gold in each row (rows,), at the best temperature."""
    decisions = to_decisions(gold, log_values.shape[1])
    temperature = fit_temperature(log_values, decisions, "single_label")
    return negative_log_likelihood(log_values, decisions, "single_label", temperature)
