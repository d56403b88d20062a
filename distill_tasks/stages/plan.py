"""Stage ``fit`` and `potstill plan`: what a whole run would take, and what a budget holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from distill_tasks.config import AUTO, BudgetConfig, DistillConfig
from distill_tasks.core.digests import digest
from distill_tasks.core.environment import describe_machine
from distill_tasks.core.errors import InputError
from distill_tasks.core.progress import ProgressFile
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.sampling import keep_sample, list_asked
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.results.cross_validation import list_compared
from distill_tasks.results.estimates import Pace, Planned, plan_grid
from distill_tasks.results.grid import Trial, further_trials
from distill_tasks.results.references import CorpusReference
from distill_tasks.results.run import cheapest
from distill_tasks.results.sampling import find_sample
from distill_tasks.results.teacher import digest_teacher, find_labels, teacher_context
from distill_tasks.stages.stage import stage
from distill_tasks.students import Student
from distill_tasks.students.formats import choose_variants
from distill_tasks.training.checkpoint import Checkpoint

logger = logging.getLogger("potstill")

TEACHER_ROWS = 160
"""Rows that the teacher is timed on."""
EXPORT_S, MEASURE_S = 12.0, 10.0
"""What exporting a variant, and timing a model and its memory, take."""
AROUND_MINUTES = 1.0
"""What Prefect, MLflow, the report and the cheap control take."""
TEMPERATURES, ALPHAS, CURVE = 4, 2, 2
"""Trainings of the cheapest student that each setting `auto` takes, and the learning curve."""


@dataclass(frozen=True)
class Plan:
    """What a whole run takes at most, in minutes on this machine."""

    teacher: float
    """Its training; 0 where it is ready or in the store."""
    labelling: float
    """Its answers that the store does not hold."""
    students: list[Planned]
    beside: dict[str, float]
    """Further carvings, export and measuring of each student, by its name."""
    further: dict[str, float]
    """The other seeds and the controls that each takes as a finalist, by its name."""
    finalists: int
    around: float
    """Tuning, the learning curve, controls that are no finalist's, MLflow and the report."""

    @property
    def grid(self) -> float:
        """Minutes to train every student once."""
        return sum(one.minutes for one in self.students)

    def sum_minutes(self, names: Collection[str] | None = None) -> float:
        """Return the minutes of a run with some students, by default all.

        The finalists are taken to be those whose further trainings take longest.
        """
        students = [one for one in self.students if names is None or one.name in names]
        grid = sum(one.minutes + self.beside[one.name] for one in students)
        return self.teacher + self.labelling + grid + self.bound_further(names) + self.around

    def bound_further(self, names: Collection[str] | None = None) -> float:
        """Return the minutes of the finalists' other seeds and controls, at most."""
        further = [self.further[n] for n in self.further if names is None or n in names]
        return sum(sorted(further, reverse=True)[: self.finalists])


@dataclass(frozen=True)
class Fit:
    """The students that a budget does not hold."""

    left_out: dict[str, float]
    """By name, with the minutes that each would take."""
    reused: bool


@stage("fit the grid into the budget")
def fit(config: DistillConfig, corpus: CorpusReference) -> Fit:
    """Say which students the budget does not hold; the same ones when the run is repeated."""
    if config.budget is None:
        return Fit({}, reused=True)
    budget = config.budget
    others = {"name", "work_dir", "select", "tracking", "registry"}
    key = digest(config.model_dump(mode="json", exclude=others), corpus.digest, describe_machine())
    found, kept = Store(config.work_dir).remember(
        "fits", key, Fit, lambda: fit_budget(config, plan_run(config, corpus.open()), budget)
    )
    return replace(found, reused=kept)


def fit_budget(config: DistillConfig, plan: Plan, budget: BudgetConfig) -> Fit:
    """Return the students that are left out so that the rest fits.

    The cheapest student of each family comes first, then the others, the cheapest first. Raises
    InputError if not even one fits.
    """
    cost = {one.name: one.minutes + plan.beside[one.name] for one in plan.students}
    family = {student.name: type(student) for student in config.students}
    by_cost = sorted(cost, key=lambda name: cost[name])
    cheapest = {family[name]: name for name in reversed(by_cost)}
    kept: list[str] = []
    for name in sorted(by_cost, key=lambda name: name not in cheapest.values()):
        if plan.sum_minutes([*kept, name]) <= budget.minutes:
            kept.append(name)
    if not kept:
        needed = plan.sum_minutes(by_cost[:1])
        raise InputError(
            f"budget.minutes is {budget.minutes:g}, but the teacher, its answers and {by_cost[0]} "
            f"alone take about {needed:.1f}. Raise it, or lower evaluate.seeds or the rows."
        )
    left_out = {name: cost[name] for name in by_cost if name not in kept}
    for name, minutes in left_out.items():
        logger.warning("budget: %s is left out, it takes about %.1f minutes", name, minutes)
    return Fit(left_out, reused=False)


def plan_run(config: DistillConfig, corpus: Corpus) -> Plan:
    """Return what a whole run takes at most, as far as the store does not hold it already."""
    learnt = keep_sample(corpus, find_sample(config, corpus))
    return sum_up(config, plan_grid(config, learnt), _time_teacher(config, corpus))


def sum_up(config: DistillConfig, students: list[Planned], teacher: tuple[float, float]) -> Plan:
    """Return what a run takes, of what each student takes once.

    ``teacher`` is the minutes of its training and of its answers.
    """
    teach, label = teacher
    tried = students[_find_cheapest(config)].minutes
    tunings = TEMPERATURES * (config.loss.temperature == AUTO)
    tunings += ALPHAS * (config.loss.alpha == AUTO)
    return Plan(
        teacher=teach,
        labelling=label,
        students=students,
        beside={
            one.name: _count_beside(config, student) * one.minutes + _serve_minutes(config, student)
            for one, student in zip(students, config.students, strict=True)
        },
        further={
            one.name: len(further_trials(config, student)) * one.minutes
            for one, student in zip(students, config.students, strict=True)
        },
        finalists=config.evaluate.finalists,
        around=(tunings + CURVE) * tried
        + AROUND_MINUTES
        + _export_teacher_minutes(config)
        + _ablate_minutes(config, students),
    )


def _find_cheapest(config: DistillConfig) -> int:
    """Return the number of the student that settings are tuned on, or of the first one."""
    names = [student.name for student in config.students]
    cheap = cheapest(config).name
    return names.index(cheap) if cheap in names else 0


def _count_beside(config: DistillConfig, student: Student) -> int:
    """Return how often a student is trained again whether or not it becomes a finalist."""
    trial = Trial(student, config.seed)
    return (config.evaluate.validation_folds - 1) * len(list_compared(config, [trial]))


def _serve_minutes(config: DistillConfig, student: Student) -> float:
    """Return the minutes that exporting and measuring a student and its variants take."""
    variants = len(choose_variants(config.export)) if student.runtime == "torch" else 0
    return (variants * EXPORT_S + (1 + variants) * MEASURE_S) / 60


def _export_teacher_minutes(config: DistillConfig) -> float:
    """Return the minutes that exporting and measuring the teacher's variants take."""
    if config.teacher.start is None:
        return 0.0
    return len(choose_variants(config.export)) * (EXPORT_S + MEASURE_S) / 60


def _ablate_minutes(config: DistillConfig, students: Sequence[Planned]) -> float:
    """Return the minutes of training one student again without synthetic rows, at most."""
    if config.data.synthetic is None:
        return 0.0
    return config.evaluate.seeds * max(one.minutes for one in students)


def _time_teacher(config: DistillConfig, corpus: Corpus) -> tuple[float, float]:
    """Return the minutes of the teacher's training and of its answers, as far as they are due."""
    teacher, start = config.teacher, config.teacher.start
    if start is None:
        return 0.0, 0.0
    key = digest_teacher(config, corpus)
    store, train_s = Store(config.work_dir), 0.0
    if not teacher.ready and store.manifest("teachers", key) is None:
        train_s = _time_training(config, corpus)
    asked = list_asked(corpus, find_sample(config, corpus))
    due = SoftLabelStore(find_labels(config), key, corpus.classes).missing(asked)
    return train_s / 60, _time_answers(config, corpus, start, due) / 60


def _time_training(config: DistillConfig, corpus: Corpus) -> float:
    """Return the seconds that the training of a teacher takes, from an epoch on some rows."""
    short, epochs = config.teacher.one_epoch()
    order = np.random.default_rng(config.seed).permutation(len(corpus.splits["train"]))
    parts = {
        "train": corpus.splits["train"].take(order[:TEACHER_ROWS]),
        "validation": corpus.splits["validation"].take(np.arange(1)),
    }
    part = replace(corpus, splits=corpus.splits | parts)
    logger.info("plan: a few steps of the teacher")
    with TemporaryDirectory() as folder:
        progress = ProgressFile(Path(folder), "teacher")
        balanced = config.loss.balance_classes
        with progress.told():
            short.train(part, Path(folder), seed=config.seed, balanced=balanced, progress=progress)
        pace = Pace(progress.read())
    whole = pace.steps * len(corpus.splits["train"]) / len(parts["train"])
    return epochs * whole * pace.step_s


def _time_answers(
    config: DistillConfig, corpus: Corpus, start: Checkpoint, due: Sequence[str]
) -> float:
    """Return the seconds that a teacher takes for texts, from those after its first batch."""
    sample = due[:: max(len(due) // TEACHER_ROWS, 1)][:TEACHER_ROWS]
    if not sample:
        return 0.0
    began, first, done = 0.0, 0, 0
    context = teacher_context(config, corpus, start)
    for rows, *_ in config.teacher.answers(sample, context):
        done += len(rows)
        if not began:
            began, first = time.monotonic(), done
    timed = done - first
    return (time.monotonic() - began) / timed * len(due) if timed else 0.0
