"""Stages ``teach`` and ``label``: the teacher is made once, and answers every row once."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.core.errors import InputError
from distill_tasks.core.live import Progress
from distill_tasks.core.notes import Note, Rank
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.soft_labels import SHARD_ROWS, SoftLabelStore
from distill_tasks.results.references import CorpusReference, LabelsReference, TeacherReference
from distill_tasks.results.teacher import find_labels, make_teacher, teacher_context
from distill_tasks.stages.stage import stage

if TYPE_CHECKING:
    from distill_tasks.teachers.base import Batches

logger = logging.getLogger("potstill")


EVALUATION = "validation", "held_out"
"""Splits whose rows count whether or not the teacher answers them."""


def label_rows(config: DistillConfig, corpus: Corpus, teacher: TeacherReference) -> LabelsReference:
    """Ask the teacher for every text of the corpus that it has not answered before.

    A row of validation or held-out that it does not answer is kept as one that it knows nothing
    of: all classes are equally likely.
    """
    root = find_labels(config)
    answers, store = SoftLabelStore(root, teacher.digest, teacher.classes), Store(config.work_dir)
    texts = answers.missing(corpus.texts)
    spent = store.manifest("labelling", teacher.digest, "seconds") or {"seconds": 0.0}
    if texts:
        start = time.monotonic()
        logger.info("label: asking the teacher for %d of %d rows", len(texts), len(corpus.texts))
        context = teacher_context(config, corpus, teacher.model)
        _keep(config.teacher.answers(texts, context), texts, answers)
        _settle_evaluation(corpus, answers)
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


def drop_unanswered(
    config: DistillConfig, corpus: CorpusReference, labels: LabelsReference
) -> CorpusReference:
    """Return the corpus without the training rows that the teacher did not answer.

    Raises InputError if none of train is left.
    """
    rows = corpus.open()
    unanswered = set(labels.open().missing(rows.texts))
    if not unanswered:
        return corpus
    splits = {
        name: split.take(np.array([text not in unanswered for text in split.texts], np.bool_))
        for name, split in rows.splits.items()
    }
    left_out = sum(map(len, rows.splits.values())) - sum(map(len, splits.values()))
    if not len(splits["train"]):
        raise InputError(
            f"The teacher answered none of the {len(rows.splits['train']):,} rows of train. "
            "Look at its answers, and correct the teacher."
        )
    about = f"{left_out:,} rows are left out: the teacher did not answer them"
    note = Note(Rank.KNOW, about)
    kept = replace(rows, splits=splits, findings=(*rows.findings, note))
    return CorpusReference.keep(Store(config.work_dir), kept, corpus.report)


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


def _settle_evaluation(corpus: Corpus, answers: SoftLabelStore) -> None:
    """Let all classes be equally likely in unanswered rows of validation and held-out."""
    splits = [corpus.splits[name] for name in EVALUATION if name in corpus.splits]
    rows = [text for split in splits for text in split.texts]
    if unanswered := answers.missing(rows):
        logger.warning(
            "label: the teacher did not answer %d rows of validation and held-out; there it counts "
            "as knowing nothing",
            len(unanswered),
        )
        answers.add(unanswered, np.zeros((len(unanswered), len(answers.classes)), np.float32))


def _keep(answers: Batches, texts: Sequence[str], store: SoftLabelStore) -> None:
    """Write the answers to texts shard by shard, as they come."""
    progress, done = Progress("labelling", "rows"), 0
    progress.start(len(texts))
    waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for rows, logits in answers:
        waiting.append((rows, logits))
        done += len(rows)
        progress.reach(done)
        if sum(len(rows) for rows, _ in waiting) >= SHARD_ROWS:
            _write(waiting, texts, store)
    _write(waiting, texts, store)
    progress.stop()


def _write(
    waiting: list[tuple[NDArray[Any], NDArray[Any]]], texts: Sequence[str], store: SoftLabelStore
) -> None:
    if waiting:
        numbers = np.concatenate([rows for rows, _ in waiting])
        store.add([texts[row] for row in numbers], np.concatenate([x for _, x in waiting]))
        waiting.clear()
