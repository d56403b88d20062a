"""Stages ``teach`` and ``label``: the teacher is made once, and answers every row once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.core.live import Progress
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.soft_labels import SHARD_ROWS, SoftLabelStore
from distill_tasks.results.references import CorpusReference, LabelsReference, TeacherReference
from distill_tasks.results.teacher import make_teacher
from distill_tasks.stages.stage import stage
from distill_tasks.teachers import (
    SavedTeacher,
    saved,
)
from distill_tasks.training.classifier import SequenceClassifier

logger = logging.getLogger("potstill")

Batches = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]


def label_rows(config: DistillConfig, corpus: Corpus, teacher: TeacherReference) -> LabelsReference:
    """Ask the teacher for every text of the corpus that it has not answered before."""
    root = f"{config.work_dir}/labels"
    answers, store = SoftLabelStore(root, teacher.digest, teacher.classes), Store(config.work_dir)
    texts = answers.missing(corpus.texts)
    spent = store.manifest("labelling", teacher.digest) or {"seconds": 0.0}
    if texts:
        start = time.monotonic()
        logger.info("label: asking the teacher for %d of %d rows", len(texts), len(corpus.texts))
        _ask(_answers(config, teacher), texts, answers)
        spent["seconds"] += time.monotonic() - start
        store.keep("labelling", teacher.digest, spent)
    return LabelsReference(
        root, teacher.digest, teacher.classes, len(texts), spent["seconds"], reused=not texts
    )


@stage("teach {config.teacher.kind}")
def teach(config: DistillConfig, corpus: CorpusReference) -> TeacherReference:
    """Make the teacher, or find it made."""
    return make_teacher(config, corpus.open())


@stage("label {teacher.digest}", retries=2)
def label(
    config: DistillConfig, corpus: CorpusReference, teacher: TeacherReference
) -> LabelsReference:
    """Have every row answered by the teacher."""
    return label_rows(config, corpus.open(), teacher)


def _answers(
    config: DistillConfig, teacher: TeacherReference
) -> Callable[[Sequence[str]], Batches]:
    """Return what answers texts batch by batch."""
    if isinstance(config.teacher, SavedTeacher):
        return _saved_answers(config, config.teacher, teacher.classes)
    model = teacher.model
    assert model is not None  # only a saved teacher has none
    classifier = SequenceClassifier(model.model, model.max_length, model.revision)
    logger.info("label: %s", classifier.device.reason)
    return classifier.answer


def _saved_answers(
    config: DistillConfig, teacher: SavedTeacher, classes: tuple[str, ...]
) -> Callable[[Sequence[str]], Batches]:
    texts, logits, _ = saved.read_answers(teacher, config.data.text_column, classes, config.problem)
    rows = {text: row for row, text in enumerate(texts)}

    def answer(asked: Sequence[str]) -> Batches:
        yield np.arange(len(asked)), logits[[rows[text] for text in asked]]

    return answer


def _ask(
    answers: Callable[[Sequence[str]], Batches], texts: Sequence[str], store: SoftLabelStore
) -> None:
    """Ask for texts and write the answers shard by shard."""
    progress, done = Progress("labelling", "rows"), 0
    progress.start(len(texts))
    waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for rows, logits in answers(texts):
        waiting.append((rows, logits))
        done += len(rows)
        progress.reach(done)
        if sum(len(rows) for rows, _ in waiting) >= SHARD_ROWS or done == len(texts):
            numbers = np.concatenate([rows for rows, _ in waiting])
            store.add([texts[row] for row in numbers], np.concatenate([x for _, x in waiting]))
            waiting.clear()
    progress.stop()
