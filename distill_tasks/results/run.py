"""What all students of a run have in common, and what each of them learns from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.soft_labels import SoftLabels, SoftLabelStore
from distill_tasks.problems.classification import balance_classes
from distill_tasks.results.references import TeacherReference
from distill_tasks.students import BagOfWordsStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.objective import Objective


def cheapest(config: DistillConfig) -> BagOfWordsStudent:
    """Return the linear bag of words of the grid, or the default one: it trains in seconds."""
    bags = (student for student in config.students if isinstance(student, BagOfWordsStudent))
    mine = (student for student in bags if not student.in_steps)
    return next(mine, BagOfWordsStudent())


def take(training_set: TrainingSet, rows: NDArray[np.int64]) -> TrainingSet:
    """Return the training set of some of its rows."""
    answers = replace(training_set.soft_labels, logits=training_set.soft_labels.logits[rows])
    return replace(training_set, rows=training_set.rows.take(rows), soft_labels=answers)


@dataclass(frozen=True)
class OpenRun:
    """What all students of a run have in common: rows, a teacher, and how its answers count."""

    config: DistillConfig
    corpus: Corpus
    soft_labels: SoftLabels
    """The teacher's answers to the rows of the training set."""
    teacher: TeacherReference
    objective: Objective


def open_run(
    config: DistillConfig,
    corpus: Corpus,
    labels: SoftLabelStore,
    teacher: TeacherReference,
    objective: Objective,
) -> OpenRun:
    """Return what the students of a run learn, with the answers that the teacher gave."""
    return OpenRun(config, corpus, labels.read(corpus.training_rows.texts), teacher, objective)


def make_training_set(run: OpenRun, seed: int) -> TrainingSet:
    """Return what students learn from, the teacher included."""
    config, corpus, teacher = run.config, run.corpus, run.teacher
    gold = corpus.splits["train"].gold
    weights = balance_classes(gold, len(corpus.classes)) if config.loss.balance_classes else None
    return TrainingSet(
        rows=corpus.training_rows,
        soft_labels=run.soft_labels,
        validation=corpus.splits["validation"],
        classes=teacher.classes,
        objective=run.objective,
        seed=seed,
        teacher=teacher.model,
        problem=corpus.problem,
        class_weights=weights,
        work_dir=Path(config.work_dir),
    )
