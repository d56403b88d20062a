"""A run: its configuration, references to its data, and the training sets of its students."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.core.digests import digest
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.near_repeats import keep_near_repeats
from distill_tasks.data.soft_labels import SoftLabels, SoftLabelStore
from distill_tasks.llm.label_prior import PriorChoice
from distill_tasks.problems.classification import balance_classes
from distill_tasks.results.doubts import AnsweredRows
from distill_tasks.results.references import CorpusReference, LabelsReference, TeacherReference
from distill_tasks.scoring.promises import Promise
from distill_tasks.students import CHEAPEST, Student
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.objective import Objective


@dataclass(frozen=True)
class Run:
    """One distillation: its configuration, and references to its rows, teacher and labels.

    It is small and can be pickled, so that stages can run in other processes.
    """

    config: DistillConfig
    corpus: CorpusReference
    teacher: TeacherReference
    labels: LabelsReference
    objective: Objective
    left_out: tuple[str, ...] = ()
    """Students of the grid that the budget does not hold, by name."""

    def open(self) -> OpenRun:
        """Return the run with its rows and the teacher's answers opened."""
        return OpenRun(
            self.config,
            self.corpus.open(),
            self.teacher,
            self.labels.open(),
            self.objective,
            left_out=self.left_out,
            prior=self.labels.prior,
            whole=self.corpus.whole,
        )


@dataclass(frozen=True)
class OpenRun:
    """A run whose rows have been read, and whose teacher's answers can be."""

    config: DistillConfig
    corpus: Corpus
    teacher: TeacherReference
    labels: SoftLabelStore
    objective: Objective
    left_out: tuple[str, ...] = ()
    prior: PriorChoice | None = None
    """What was found about dividing the teacher's answers; None where nothing was compared."""
    whole: Path | None = None
    """The folder of the corpus before rows left it; None if none has left."""

    @property
    def answers_digest(self) -> str:
        """The digest of the teacher's answers as they are read, divided or not."""
        teacher = self.teacher.digest
        return teacher if self.prior is None else self.prior.name_answers(teacher)

    @cached_property
    def lesson_digest(self) -> str:
        """The digest of the teacher's answers with their weights, as students learn from them."""
        if self.answer_weights is None:
            return self.answers_digest
        return digest(self.answers_digest, self.answer_weights.tolist())

    @cached_property
    def answered(self) -> AnsweredRows:
        """The rows that the teacher answered, and which of its answers are suspicious."""
        return AnsweredRows(self.corpus, self.labels, keep_near_repeats(self.store, self.corpus))

    @cached_property
    def answer_weights(self) -> NDArray[np.float32] | None:
        """How much each answer to a training row (rows,) counts; None if all count alike."""
        weight = self.config.loss.suspicious_weight
        if weight == 1:
            return None
        doubted = self.answered.doubted
        texts = self.corpus.training_rows.texts
        return np.array([weight if text in doubted else 1 for text in texts], np.float32)

    @property
    def store(self) -> Store:
        """The store of the run."""
        return Store(self.config.work_dir)

    def list_promises(self) -> list[Promise]:
        """Return what is promised of the model that is registered."""
        rows = self.corpus.splits["held_out"].rows_per_class(len(self.corpus.classes))
        return self.config.select.list_promises(
            dict(zip(self.corpus.classes, rows.tolist(), strict=True))
        )

    @cached_property
    def soft_labels(self) -> SoftLabels:
        """The teacher's answers to the training rows, with their weights, one on average."""
        found, weights = self.labels.read(self.corpus.training_rows.texts), self.answer_weights
        return found if weights is None else replace(found, weights=weights / weights.mean())


def start_run(
    config: DistillConfig,
    corpus: CorpusReference,
    teacher: TeacherReference,
    labels: LabelsReference,
    *,
    left_out: tuple[str, ...] = (),
) -> Run:
    """Return a run with the configured objective, in which `auto` means the usual values.

    ``left_out`` names students of the grid that are not trained.
    """
    usual = config.loss.usual_objective
    return Run(config, corpus, teacher, labels, usual, left_out=left_out)


def cheapest(config: DistillConfig) -> Student:
    """Return the first student of the grid that trains in seconds, or the cheapest of all."""
    return next((one for one in config.students if one.trains_in_seconds), CHEAPEST)


def take(training_set: TrainingSet, rows: NDArray[np.int64]) -> TrainingSet:
    """Return a training set with some of its rows."""
    return replace(
        training_set,
        rows=training_set.rows.take(rows),
        soft_labels=training_set.soft_labels.take(rows),
    )


def make_training_set(run: OpenRun, seed: int) -> TrainingSet:
    """Return the training set of the run's students for a seed."""
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
