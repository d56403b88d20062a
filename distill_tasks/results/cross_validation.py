"""Students compared on more gold: trained again on other ways to carve validation from train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.data.carving import Carving, carve_again
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Trial
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun
from distill_tasks.scoring import statistics as weighted
from distill_tasks.scoring.intervals import Statistic, Weights
from distill_tasks.scoring.scorecard import quality_statistic


@dataclass(frozen=True)
class CrossValidation:
    """The students of every further carving; none where `evaluate.validation_folds` is 1."""

    folds: list[list[StudentReference]] = field(default_factory=list)
    reused: bool = True


ONE_CARVING = CrossValidation()
"""No further carving: students are compared on the run's own validation alone."""


@dataclass(frozen=True)
class Pool:
    """The gold rows of all carvings: those of the first validation, then those of its train."""

    first: int
    """Rows of the first validation."""
    rows: int
    scored: int
    """Rows that every student was scored on in some carving."""
    gains: dict[str, Statistic]
    """What the other carvings add to a student's quality on the first one, by its name."""
    seed: int
    """Of the bootstrap draws of these rows."""

    def widen(self, statistic: Statistic) -> Statistic:
        """Return a statistic on the first validation as one on all rows."""
        return statistic if self.rows == self.first else _on(np.arange(self.first), statistic)

    def add_gain(self, student: str, statistic: Statistic) -> Statistic:
        """Return a candidate's quality on the first validation, with its student's gain added."""
        widened, gain = self.widen(statistic), self.gains.get(student)
        return widened if gain is None else lambda weights: widened(weights) + gain(weights)


def open_folds(run: OpenRun) -> list[tuple[OpenRun, Carving]]:
    """Return the run on each further carving of its gold."""
    times = run.config.evaluate.validation_folds - 1
    carvings = carve_again(run.corpus, times, run.config.seed)
    return [(replace(run, corpus=carving.corpus), carving) for carving in carvings]


def open_carvings(run: OpenRun, trials: Sequence[Trial]) -> dict[int, OpenRun]:
    """Return the run on every carving of its gold that trials need; the first one is its own."""
    if all(trial.carving == 1 for trial in trials):
        return {1: run}
    return dict(enumerate([run, *(fold for fold, _ in open_folds(run))], start=1))


def list_again(config: DistillConfig, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the further carvings, one carving after the other."""
    carvings = range(2, config.evaluate.validation_folds + 1)
    compared = list_compared(config, trials)
    return [replace(trial, carving=number) for number in carvings for trial in compared]


def list_compared(config: DistillConfig, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that every further carving repeats."""
    cheap_alone = config.evaluate.folds_for == "cheap"
    return [
        trial
        for trial in trials
        if trial.distilled and (trial.student.runtime == "numpy" or not cheap_alone)
    ]


def pool_gold(first: Evaluator, students: list[StudentReference], cross: CrossValidation) -> Pool:
    """Return the gold rows of all carvings and what they say of each student beyond the first.

    Where some students were trained on the first carving alone, the others' gains are about the
    differences among themselves: their common level stays that of the rows that all have answered.
    ``first`` evaluates the run's own validation.
    """
    run, rows = first.run, len(first.eval_split.split)
    alone = Pool(rows, rows, rows, {}, run.config.seed)
    if not cross.folds:
        return alone
    scored: dict[str, list[Statistic]] = {}
    numbers = [np.arange(rows)]
    for (fold, carving), trained in zip(open_folds(run), cross.folds, strict=True):
        evaluator = Evaluator(fold, "validation")
        numbers.append(carving.rows)
        for student in trained:
            quality = quality_statistic(evaluator.eval_split, [evaluator.ask(student)])
            scored.setdefault(student.student, []).append(_on(carving.rows, quality))
    gains = {}
    for student in students:
        others = scored.get(student.student, [])
        if student.name == student.student and len(others) == len(cross.folds):
            own = _on(numbers[0], quality_statistic(first.eval_split, [first.ask(student)]))
            gains[student.name] = weighted.difference(weighted.average([own, *others]), own)
    pooled = replace(alone, rows=rows + len(run.corpus.splits["train"]), gains=gains)
    if all(student.student in gains for student in students if student.distilled):
        return replace(pooled, scored=len(np.unique(np.concatenate(numbers))))
    if not gains:
        return alone
    common = weighted.average(list(gains.values()))
    apart = {name: weighted.difference(gain, common) for name, gain in gains.items()}
    return replace(pooled, gains=apart)


def _on(rows: NDArray[np.int64], statistic: Statistic) -> Statistic:
    """Return a statistic of some of the rows as one of all; rows that all weigh nothing weigh 1."""

    def of_all(weights: Weights) -> NDArray[np.float64]:
        drawn = weights[:, rows]
        drawn[drawn.sum(axis=1) == 0] = 1
        return statistic(drawn)

    return of_all
