"""Stages ``teach`` and ``label``: the teacher is made once, and answers every row once."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.core.live import Progress
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.soft_labels import SHARD_ROWS, SoftLabelStore
from distill_tasks.results.references import CorpusReference, LabelsReference, TeacherReference
from distill_tasks.results.teacher import find_labels, make_teacher
from distill_tasks.stages.stage import stage

if TYPE_CHECKING:
    from distill_tasks.teachers.base import Batches

logger = logging.getLogger("potstill")


def label_rows(config: DistillConfig, corpus: Corpus, teacher: TeacherReference) -> LabelsReference:
    """Ask the teacher for every text of the corpus that it has not answered before."""
    root = find_labels(config)
    answers, store = SoftLabelStore(root, teacher.digest, teacher.classes), Store(config.work_dir)
    texts = answers.missing(corpus.texts)
    spent = store.manifest("labelling", teacher.digest, "seconds") or {"seconds": 0.0}
    if texts:
        start = time.monotonic()
        logger.info("label: asking the teacher for %d of %d rows", len(texts), len(corpus.texts))
        given = config.teacher.answers(texts, corpus, config.data, teacher.model)
        _keep(given, texts, answers)
        spent["seconds"] += time.monotonic() - start
        store.keep("labelling", teacher.digest, spent)
    return LabelsReference(
        root=root,
        teacher=teacher.digest,
        classes=teacher.classes,
        asked=len(texts),
        seconds=spent["seconds"],
        reused=not texts,
    )


@stage("make the teacher")
def teach(config: DistillConfig, corpus: CorpusReference) -> TeacherReference:
    """Make the teacher, or find it made."""
    return make_teacher(config, corpus.open())


@stage("ask the teacher about every row", retries=2)
def label(
    config: DistillConfig, corpus: CorpusReference, teacher: TeacherReference
) -> LabelsReference:
    """Have every row answered by the teacher."""
    return label_rows(config, corpus.open(), teacher)


def _keep(answers: Batches, texts: Sequence[str], store: SoftLabelStore) -> None:
    """Write the answers to texts shard by shard, as they come."""
    progress, done = Progress("labelling", "rows"), 0
    progress.start(len(texts))
    waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for rows, logits in answers:
        waiting.append((rows, logits))
        done += len(rows)
        progress.reach(done)
        if sum(len(rows) for rows, _ in waiting) >= SHARD_ROWS or done == len(texts):
            numbers = np.concatenate([rows for rows, _ in waiting])
            store.add([texts[row] for row in numbers], np.concatenate([x for _, x in waiting]))
            waiting.clear()
    progress.stop()
