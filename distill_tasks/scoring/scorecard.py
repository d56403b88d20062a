"""The scorecard: a model's quality against gold labels and against the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distill_tasks.data.corpus import Split
from distill_tasks.problems.classification import NO_LABEL, Decisions, Logits, Problem
from distill_tasks.scoring import statistics as weighted
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.intervals import Figure, Statistic, estimate, plain_value
from distill_tasks.scoring.statistics import Quality

F1_METRICS: dict[Problem, tuple[Quality, ...]] = {
    "single_label": ("macro_f1", "weighted_f1"),  # micro F1 of a single label is accuracy
    "multi_label": ("macro_f1", "weighted_f1", "micro_f1"),
}


@dataclass(frozen=True)
class Predictions:
    """One model's logits for the rows of a split, and its calibration."""

    logits: Logits
    calibration: Calibration


@dataclass(frozen=True)
class EvalSplit:
    """A split, the teacher's answers to it, and the metric that models are compared by."""

    name: str
    split: Split
    teacher: Predictions
    classes: tuple[str, ...]
    problem: Problem
    metric: Quality

    @property
    def gold(self) -> Decisions | None:
        """Gold as a matrix (rows, classes); None where the split has none."""
        return self.split.decisions(len(self.classes))

    @property
    def truth(self) -> Decisions:
        """What counts as right: gold, or the teacher's predictions where there is no gold."""
        return self.decide(self.teacher) if self.gold is None else self.gold

    @property
    def without_gold(self) -> EvalSplit:
        """The same rows as if they had no gold: what counts as right is what the teacher says."""
        gold = np.full_like(self.split.gold, NO_LABEL)
        return replace(self, split=replace(self.split, gold=gold))

    def decide(self, predictions: Predictions) -> Decisions:
        """Return a model's predictions as a matrix of decisions (rows, classes)."""
        return predictions.calibration.decide(predictions.logits, self.problem)


@dataclass(frozen=True)
class Scorecard:
    """Every quality figure of one model on one split, with its interval."""

    split: str
    metric: Quality
    figures: dict[str, Figure]
    """By metric name; of several seeds their mean, with the interval over rows."""
    per_class: list[dict[str, Any]]
    classes_scored: int
    """Classes that F1 is taken over: those with rows in the split."""
    temperature: float
    """The calibration temperature, fitted on validation; of several seeds the first one's."""
    spread: dict[str, tuple[float, float]]
    """Least and greatest value among the seeds, retention left out; empty for a single one."""

    @property
    def quality(self) -> Figure:
        """The metric that models are compared by; agreement where the split has no gold."""
        return self.figures.get(f"quality/{self.metric}") or self.figures["fidelity/agreement"]

    @property
    def values(self) -> dict[str, float]:
        """The figures without their intervals, by metric name."""
        return {name: figure.value for name, figure in self.figures.items()}


def score(eval_split: EvalSplit, seeds: Sequence[Predictions], seed: int = 0) -> Scorecard:
    """Score a model, trained from one seed or several, against gold and the teacher.

    Gold figures are absent, not zero, where the split has no gold.
    """
    each = [_statistics(eval_split, predictions) for predictions in seeds]
    names = dict.fromkeys(name for one in each for name in one)
    named = {name: [one[name] for one in each if name in one] for name in names}
    statistics = {name: weighted.average(parts) for name, parts in named.items()}
    gold = eval_split.gold
    if gold is not None:
        teacher_quality = weighted.quality(
            eval_split.metric, gold, eval_split.decide(eval_split.teacher)
        )
        ours = statistics[f"quality/{eval_split.metric}"]
        statistics["fidelity/retention"] = weighted.ratio(ours, teacher_quality)
    rows = len(eval_split.split)
    predicted = [eval_split.decide(one) for one in seeds]
    figures = estimate(statistics, rows, seed, biased=["calibration/ece"])
    if gold is not None:
        figures["quality/macro_f1"] = widen_macro_f1(figures["quality/macro_f1"], gold, predicted)
    return Scorecard(
        split=eval_split.name,
        metric=eval_split.metric,
        figures=figures,
        per_class=[]
        if gold is None
        else weighted.per_class(gold, predicted[0], eval_split.classes),
        temperature=seeds[0].calibration.temperature,
        classes_scored=0 if gold is None else weighted.count_present(gold),
        spread=_spread(named, rows) if len(seeds) > 1 else {},
    )


def widen_macro_f1(figure: Figure, gold: Decisions, predicted: Sequence[Decisions]) -> Figure:
    """Return a macro F1 whose interval is no narrower than the rows of each class allow.

    A few rows of a class that are all right, or all wrong, are so in every bootstrap sample too.
    """
    low, high = weighted.macro_f1_ends(gold, predicted)
    return replace(figure, low=min(figure.low, low), high=max(figure.high, high))


def quality_statistic(eval_split: EvalSplit, seeds: Sequence[Predictions]) -> Statistic:
    """Return the metric that models are compared by, over seeds; agreement where gold is absent."""
    truth, metric = eval_split.truth, eval_split.metric if eval_split.split.has_gold else "accuracy"
    return weighted.average(
        [weighted.quality(metric, truth, eval_split.decide(one)) for one in seeds]
    )


def _statistics(eval_split: EvalSplit, predictions: Predictions) -> dict[str, Statistic]:
    logits, teacher, problem = predictions.logits, eval_split.teacher.logits, eval_split.problem
    predicted = eval_split.decide(predictions)
    agreed = (predicted == eval_split.decide(eval_split.teacher)).all(axis=1)
    gold = eval_split.gold
    return ({} if gold is None else _gold_statistics(eval_split, gold, predictions, predicted)) | {
        "fidelity/agreement": weighted.mean(agreed),
        "fidelity/kl": weighted.mean(weighted.kl_divergence(logits, teacher, problem)),
        "fidelity/js": weighted.mean(weighted.js_divergence(logits, teacher, problem)),
        "fidelity/top_overlap": weighted.mean(weighted.top_overlap(logits, teacher)),
    }


def _gold_statistics(
    eval_split: EvalSplit, gold: Decisions, predictions: Predictions, predicted: Decisions
) -> dict[str, Statistic]:
    logits, problem, temperature = (
        predictions.logits,
        eval_split.problem,
        predictions.calibration.temperature,
    )
    sure, right = (
        predictions.calibration.confidence(logits, problem),
        (predicted == gold).all(axis=1),
    )
    likelihood = weighted.negative_log_likelihood(logits, gold, problem, temperature)
    metrics: list[Quality] = ["accuracy", *F1_METRICS[problem], eval_split.metric]
    statistics = {
        **{f"quality/{m}": weighted.quality(m, gold, predicted) for m in dict.fromkeys(metrics)},
        "calibration/ece": weighted.calibration_error(sure, right),
        "calibration/nll": weighted.mean(likelihood),
        "calibration/brier": weighted.mean(
            weighted.brier_score(logits, gold, problem, temperature)
        ),
    }
    if predictions.calibration.answer_from is not None:
        answers = sure >= predictions.calibration.answer_from
        statistics["answering/coverage"] = weighted.mean(answers)
        if answers.any():
            statistics["answering/precision"] = weighted.ratio(
                weighted.mean(right & answers), weighted.mean(answers)
            )
    return statistics


def _spread(named: dict[str, list[Statistic]], rows: int) -> dict[str, tuple[float, float]]:
    values = {name: [plain_value(part, rows) for part in parts] for name, parts in named.items()}
    return {name: (min(found), max(found)) for name, found in values.items()}
