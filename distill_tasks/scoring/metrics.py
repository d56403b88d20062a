"""The metrics as modules of the library `evaluate`, usable anywhere and without a network.

Predictions are logits (rows, classes). References are class numbers (rows,), or zeros and ones
(rows, classes) with ``config_name="multi_label"``. `Fidelity` takes the teacher's logits as
references. `evaluate.combine` puts them together: ``combine([Accuracy(), F1()])``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, Value
from datasets import Sequence as ListOf
from numpy.typing import NDArray

from distill_tasks.problems.classification import (
    Decisions,
    Logits,
    Problem,
    confidence,
    decide,
    to_decisions,
)
from distill_tasks.scoring import statistics as weighted_metrics
from distill_tasks.scoring.intervals import plain_value

LOGITS = ListOf(Value("float32"))


class _RowMetric(evaluate.Metric):  # type: ignore[misc]  # the library is untyped
    """A metric of logits, single-label unless ``config_name`` says multi_label."""

    description: ClassVar[str]
    citation: ClassVar[str] = ""

    @property
    def problem(self) -> Problem:
        """The kind of problem, given as the module's configuration."""
        return "multi_label" if self.config_name == "multi_label" else "single_label"

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation,
            inputs_description=__doc__,
            features=Features({"predictions": LOGITS, "references": self._references()}),
        )

    def _references(self) -> Any:
        return Value("int64") if self.problem == "single_label" else ListOf(Value("int64"))


class Accuracy(_RowMetric):
    """The share of rows whose answer is right, of several labels all of them."""

    description = "Share of rows answered exactly right."

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[Any]
    ) -> dict[str, float]:
        _, predicted, gold = _read(predictions, references, self.problem)
        return {
            "accuracy": plain_value(
                weighted_metrics.quality("accuracy", gold, predicted), len(gold)
            )
        }


class F1(_RowMetric):
    """Macro, weighted and micro F1 over the classes that the references contain."""

    description = "F1 over the classes present in the references, averaged in three ways."

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[Any]
    ) -> dict[str, float]:
        _, predicted, gold = _read(predictions, references, self.problem)
        names: tuple[weighted_metrics.Quality, ...] = ("macro_f1", "weighted_f1", "micro_f1")
        found: dict[str, float] = {"classes": weighted_metrics.count_present(gold)}
        for name in names:
            found[name] = plain_value(weighted_metrics.f1(gold, predicted, name), len(gold))
        return found


class Calibration(_RowMetric):
    """How far confidences are from being right: ECE of equal mass, NLL and Brier score."""

    description = "Expected calibration error, negative log-likelihood and Brier score."
    citation = "Naeini et al. 2015; Nguyen and O'Connor 2015; Brier 1950"

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[Any]
    ) -> dict[str, float]:
        logits, predicted, gold = _read(predictions, references, self.problem)
        sure, right = confidence(logits, predicted, self.problem), (predicted == gold).all(axis=1)
        likelihood = weighted_metrics.negative_log_likelihood(logits, gold, self.problem)
        return {
            "ece": plain_value(weighted_metrics.calibration_error(sure, right), len(gold)),
            "nll": float(likelihood.mean()),
            "brier": float(weighted_metrics.brier_score(logits, gold, self.problem).mean()),
        }


class Fidelity(_RowMetric):
    """How closely a student follows its teacher, whose logits are the references."""

    description = "Agreement, KL(teacher‖student), Jensen–Shannon divergence and top-class overlap."
    citation = "Hinton et al. 2015; Lin 1991"

    def _references(self) -> Any:
        return LOGITS

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[Sequence[float]]
    ) -> dict[str, float]:
        student, teacher = (np.array(x, np.float32) for x in (predictions, references))
        predicted, by_teacher = (decide(x, self.problem) for x in (student, teacher))
        divergences = (
            divergence(student, teacher, self.problem).mean()
            for divergence in (weighted_metrics.kl_divergence, weighted_metrics.js_divergence)
        )
        kl, js = (float(value) for value in divergences)
        return {
            "agreement": float((predicted == by_teacher).all(axis=1).mean()),
            "kl": kl,
            "js": js,
            "top_overlap": float(weighted_metrics.top_overlap(student, teacher).mean()),
        }


def _read(
    predictions: Sequence[Sequence[float]], references: Sequence[Any], problem: Problem
) -> tuple[Logits, Decisions, Decisions]:
    """Return logits, the decisions that follow from them, and gold as a matrix."""
    logits = np.array(predictions, np.float32)
    gold: NDArray[np.int64] = np.array(references, np.int64)
    return logits, decide(logits, problem), to_decisions(gold, logits.shape[1])
