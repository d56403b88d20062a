"""Comparing two models of the registry on the same rows in one run: quality and latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.measuring.stopwatch import time_served
from distill_tasks.scoring.intervals import plain_value
from distill_tasks.scoring.statistics import quality
from distill_tasks.scoring.verdicts import SIGNIFICANCE, compare_answers
from registry.served import ask, join_classes

if TYPE_CHECKING:
    from distill_tasks.data.corpus import Split
    from distill_tasks.measuring.latency import Latency, MeasureConfig
    from distill_tasks.problems.classification import Decisions
    from distill_tasks.scoring.statistics import Quality
    from distill_tasks.scoring.verdicts import PairedComparison
    from registry.served import Asked


@dataclass(frozen=True)
class SideBySide:
    """The comparison of two models on the same rows in one run."""

    names: tuple[str, str]
    metric: Quality
    qualities: tuple[float, float] | None
    """The metric of both; None if the rows have no gold."""
    macro_f1: tuple[float, float] | None
    """Macro F1 of both; None if the rows have no gold."""
    agreement: float
    comparison: PairedComparison | None
    latencies: tuple[Latency, Latency]
    rows: int
    asked: tuple[Asked, Asked]
    """Both models with their answers."""


def compare_models(
    first: str,
    second: str,
    rows: Split,
    classes: tuple[str, ...],
    measure: MeasureConfig,
    metric: Quality = "accuracy",
) -> SideBySide:
    """Load two models by URI and compare them on the same rows, quality and latency."""
    return compare_asked(ask(first, rows), ask(second, rows), rows, classes, measure, metric)


def compare_asked(
    first: Asked,
    second: Asked,
    rows: Split,
    classes: tuple[str, ...],
    measure: MeasureConfig,
    metric: Quality = "accuracy",
    significance: float = SIGNIFICANCE,
) -> SideBySide:
    """Compare quality and latency of two models that were run on the same rows.

    ``significance`` is that of `scoring.verdicts.compare_answers`.
    """
    known = join_classes(classes, first, second)
    ours, theirs = first.decide(known), second.decide(known)
    places = {"first": first.place, "second": second.place}
    timed = time_served(places, rows.texts, measure)
    comparison, qualities, macro_f1 = None, None, None
    gold = read_gold(rows, classes, known)
    if gold is not None:
        comparison = compare_answers(gold, [ours], [theirs], metric, significance=significance)
        qualities = score_both(metric, gold, (ours, theirs))
        macro_f1 = score_both("macro_f1", gold, (ours, theirs))
    return SideBySide(
        names=(first.uri, second.uri),
        metric=metric,
        qualities=qualities,
        macro_f1=macro_f1,
        agreement=float((ours == theirs).all(axis=1).mean()),
        comparison=comparison,
        latencies=(timed["first"], timed["second"]),
        rows=len(rows),
        asked=(first, second),
    )


def score_both(
    metric: Quality, gold: Decisions, predicted: tuple[Decisions, Decisions]
) -> tuple[float, float]:
    """Return a metric of two models' predictions for the same gold."""
    first, second = (plain_value(quality(metric, gold, one), len(gold)) for one in predicted)
    return first, second


def read_gold(rows: Split, classes: tuple[str, ...], known: tuple[str, ...]) -> Decisions | None:
    """Return gold as a matrix (rows, classes known to rows or models); None without gold."""
    gold = rows.decisions(len(classes))
    return None if gold is None else np.pad(gold, ((0, 0), (0, len(known) - len(classes))))
