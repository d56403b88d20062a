"""What the answers of student, teacher and baseline come to: figures, intervals, a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.plugins.asking import BASELINE, STUDENT, TEACHER
from distill_tasks.problems.classification import to_decisions
from distill_tasks.scoring import statistics
from distill_tasks.scoring.intervals import estimate
from distill_tasks.scoring.scorecard import widen_macro_f1
from distill_tasks.scoring.verdicts import compare_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from distill_tasks.measuring.latency import Latency
    from distill_tasks.plugins.answers import Answers
    from distill_tasks.plugins.asking import Asked
    from distill_tasks.plugins.request import Request
    from distill_tasks.problems.classification import Decisions, Logits
    from distill_tasks.scoring.intervals import Figure, Statistic
    from distill_tasks.scoring.statistics import Quality
    from distill_tasks.scoring.verdicts import PairedComparison

SMALLEST_PROBABILITY = 1e-12
"""Stands for zero, whose logarithm has no end."""
LATENCIES = ("latency/p50_ms", "latency/p95_ms", "throughput/rows_per_s")


@dataclass(frozen=True)
class Comparison:
    """How a student compares with its teacher, and with the baseline if there is one."""

    classes: tuple[str, ...]
    figures: dict[str, dict[str, Figure]]
    """By role and name of the figure."""
    latencies: dict[str, Latency]
    metric: Quality
    against: str
    """The role that the verdict is against."""
    paired: PairedComparison | None
    """The student minus the other one; None without right labels."""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.paired is None:
            return "no verdict: the data have no labels"
        gap, name = self.paired.difference, statistics.QUALITY_NAMES[self.metric]
        return (
            f"{self.paired.verdict}: the student's {name} is {gap.points} against the "
            f"{self.against}'s, on {gap.rows:,} rows"
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Every figure by the name of its metric; those of others carry their role in front."""
        found = {
            _name(role, name): figure.value
            for role, figures in self.figures.items()
            for name, figure in figures.items()
        }
        for role, latency in self.latencies.items():
            found |= {_name(role, name): latency.values[name] for name in LATENCIES}
        if self.paired is not None:
            gap = self.paired.difference
            found |= {"verdict/difference": gap.value, "verdict/low": gap.low}
            found |= {"verdict/high": gap.high, "verdict/p_value": self.paired.p_value}
        return found


def compare_all(request: Request, asked: Asked) -> Comparison:
    """Return every figure with its interval, and the verdict.

    Raises InputError where the models and the data have no class in common.
    """
    classes = _join_classes(asked)
    decided = {role: decide(said.labels, classes) for role, said in asked.answers.items()}
    gold = None if asked.gold is None else decide(asked.gold, classes)
    against = BASELINE if BASELINE in decided else TEACHER
    paired = None
    if gold is not None:
        paired = compare_answers(gold, [decided[STUDENT]], [decided[against]], request.metric)
    figures = {
        role: _estimate(role, asked, decided, gold, request.metric) for role in asked.answers
    }
    return Comparison(classes, figures, asked.latencies, request.metric, against, paired)


def decide(labels: NDArray[np.object_], classes: Sequence[str]) -> Decisions:
    """Return labels (rows,) as a matrix of decisions (rows, classes)."""
    return to_decisions(pd.Index(classes).get_indexer(pd.Index(labels)), len(classes))


def _join_classes(asked: Asked) -> tuple[str, ...]:
    """Return all classes in alphabetical order."""
    of_gold = set() if asked.gold is None else set(asked.gold)
    classes = set(of_gold)
    for role, said in asked.answers.items():
        named = set(said.labels)
        if of_gold and not named & of_gold:
            raise InputError(
                f"The {role} answers {shortlist(sorted(named))}; the labels of the data are "
                f"{shortlist(sorted(of_gold))}. Give both the same classes."
            )
        classes |= named
    return tuple(sorted(classes))


def _estimate(
    role: str,
    asked: Asked,
    decided: dict[str, Decisions],
    gold: Decisions | None,
    metric: Quality,
) -> dict[str, Figure]:
    """Return the figures of one model with their intervals."""
    found: dict[str, Statistic] = {}
    if gold is not None:
        found |= _score(asked.answers[role], decided[role], gold, metric)
    if role != TEACHER:
        found |= _follow(asked.answers[role], asked.answers[TEACHER])
    if role != TEACHER and gold is not None:
        ours, theirs = (statistics.quality(metric, gold, decided[one]) for one in (role, TEACHER))
        found["fidelity/retention"] = statistics.ratio(ours, theirs)
    figures = estimate(found, len(asked.rows), 0, biased=["calibration/ece"])
    if gold is not None:
        macro_f1 = figures["quality/macro_f1"]
        figures["quality/macro_f1"] = widen_macro_f1(macro_f1, gold, [decided[role]])
    return figures


def _score(
    said: Answers, predicted: Decisions, gold: Decisions, metric: Quality
) -> dict[str, Statistic]:
    """Return quality and calibration of a model's answers."""
    metrics: tuple[Quality, ...] = ("accuracy", "macro_f1", metric)
    found = {f"quality/{name}": statistics.quality(name, gold, predicted) for name in metrics}
    if said.confidence is not None:
        right = (predicted == gold).all(axis=1)
        found["calibration/ece"] = statistics.calibration_error(said.confidence, right)
    return found


def _follow(said: Answers, teacher: Answers) -> dict[str, Statistic]:
    """Return how closely a model follows the teacher."""
    found = {"fidelity/agreement": statistics.mean(said.labels == teacher.labels)}
    ours, theirs = said.probabilities, teacher.probabilities
    if ours is not None and theirs is not None and set(ours) == set(theirs):
        of, by = _to_logits(theirs), _to_logits(ours[list(theirs)])
        found["fidelity/kl"] = statistics.mean(statistics.kl_divergence(by, of, "single_label"))
    return found


def _to_logits(probabilities: pd.DataFrame) -> Logits:
    """Return logits (rows, classes) whose softmax are these probabilities."""
    values: Logits = np.log(np.maximum(probabilities.to_numpy(np.float64), SMALLEST_PROBABILITY))
    return values


def _name(role: str, figure: str) -> str:
    return figure if role == STUDENT else f"{role}/{figure}"
