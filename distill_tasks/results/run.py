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
from distill_tasks.students.base import Lesson
from distill_tasks.training.objective import Blend


def cheapest(config: DistillConfig) -> BagOfWordsStudent:
    """Return the linear bag of words of the grid, or the default one: it trains in seconds."""
    bags = (student for student in config.students if isinstance(student, BagOfWordsStudent))
    mine = (student for student in bags if not student.in_steps)
    return next(mine, BagOfWordsStudent())


def take(lesson: Lesson, rows: NDArray[np.int64]) -> Lesson:
    """Return the lesson of some of its rows."""
    answers = replace(lesson.soft_labels, logits=lesson.soft_labels.logits[rows])
    return replace(lesson, rows=lesson.rows.take(rows), soft_labels=answers)


@dataclass(frozen=True)
class Schooling:
    """What all students of a run have in common: rows, a teacher, and how its answers count."""

    config: DistillConfig
    corpus: Corpus
    soft_labels: SoftLabels
    """The teacher's answers to the rows of the lesson."""
    teacher: TeacherReference
    blend: Blend


def read_schooling(
    config: DistillConfig,
    corpus: Corpus,
    labels: SoftLabelStore,
    teacher: TeacherReference,
    blend: Blend,
) -> Schooling:
    """Return what the students of a run learn, with the answers that the teacher gave."""
    return Schooling(config, corpus, labels.read(corpus.lesson.texts), teacher, blend)


def make_lesson(schooling: Schooling, seed: int) -> Lesson:
    """Return what students learn from, the teacher included."""
    config, corpus, teacher = schooling.config, schooling.corpus, schooling.teacher
    gold = corpus.splits["train"].gold
    weights = balance_classes(gold, len(corpus.classes)) if config.loss.balance_classes else None
    return Lesson(
        rows=corpus.lesson,
        soft_labels=schooling.soft_labels,
        validation=corpus.splits["validation"],
        classes=teacher.classes,
        blend=schooling.blend,
        seed=seed,
        teacher=teacher.model,
        problem=corpus.problem,
        class_weights=weights,
        work_dir=Path(config.work_dir),
    )
