"""Stages ``teach`` and ``label``: the teacher is made once, and answers every row once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill_tasks.artifacts import kept_in_prefect
from distill_tasks.config import DistillConfig
from distill_tasks.corpus import Corpus
from distill_tasks.prepare import CorpusReference
from distill_tasks.progress import Progress, shown
from distill_tasks.soft_labels import SHARD_ROWS, SoftLabelStore
from distill_tasks.stage import stage
from distill_tasks.store import Store
from distill_tasks.students.lesson import TeacherModel
from distill_tasks.teachers import (
    FinetuneTeacher,
    SavedTeacher,
    TransformersTeacher,
    digest_teacher,
    finetune,
    saved,
    sequence_classifier,
)

if TYPE_CHECKING:
    from distill_tasks.training import Curve

logger = logging.getLogger("potstill")

Batches = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]


@dataclass(frozen=True)
class TeacherReference:
    """The teacher of this run: its digest, its classes in logit order, and its weights if any."""

    digest: str
    classes: tuple[str, ...]
    model: TeacherModel | None
    seconds: float
    curve: list[Curve]
    reused: bool


@dataclass(frozen=True)
class LabelsReference:
    """Where the teacher's answers to all rows of the corpus lie."""

    root: str
    teacher: str
    classes: tuple[str, ...]
    asked: int
    """Rows that had to be asked in this run."""
    seconds: float
    """Spent on this teacher's answers, earlier runs included."""
    reused: bool

    def open(self) -> SoftLabelStore:
        """Read the store."""
        return SoftLabelStore(self.root, self.teacher, self.classes)


def make_teacher(config: DistillConfig, corpus: Corpus) -> TeacherReference:
    """Return the configured teacher, fine-tuned first where that is asked and not yet done."""
    digest = digest_teacher(config.teacher, corpus, config.seed, config.loss.balance_classes)
    match config.teacher:
        case SavedTeacher():
            return TeacherReference(digest, corpus.classes, None, 0.0, [], reused=True)
        case TransformersTeacher() as teacher:
            model = TeacherModel(teacher.model, teacher.revision, teacher.max_length)
            classes = sequence_classifier.read_classes(teacher)
            return TeacherReference(digest, classes, model, 0.0, [], reused=True)
        case FinetuneTeacher() as teacher:
            return _finetune(config, teacher, corpus, digest)


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
    with kept_in_prefect():
        return make_teacher(config, corpus.open())


@stage("label {teacher.digest}", retries=2)
def label(
    config: DistillConfig, corpus: CorpusReference, teacher: TeacherReference
) -> LabelsReference:
    """Have every row answered by the teacher."""
    return label_rows(config, corpus.open(), teacher)


def _finetune(
    config: DistillConfig, teacher: FinetuneTeacher, corpus: Corpus, digest: str
) -> TeacherReference:
    store = Store(config.work_dir)
    model = TeacherModel(store.folder("teachers", digest), None, teacher.max_length)
    manifest = store.manifest("teachers", digest)
    reused = manifest is not None
    if manifest is None:
        logger.info("teach: fine-tuning %s on %d rows", teacher.base, len(corpus.splits["train"]))
        start, manifest = time.monotonic(), {}
        with store.build("teachers", digest, manifest) as draft:
            balanced = config.loss.balance_classes
            with shown("teacher"):
                manifest["curve"] = finetune.fit(teacher, corpus, draft, config.seed, balanced)
            manifest["seconds"] = time.monotonic() - start
    return TeacherReference(
        digest, corpus.classes, model, manifest["seconds"], manifest["curve"], reused
    )


def _answers(
    config: DistillConfig, teacher: TeacherReference
) -> Callable[[Sequence[str]], Batches]:
    """Return what answers texts batch by batch."""
    if isinstance(config.teacher, SavedTeacher):
        return _saved_answers(config, config.teacher, teacher.classes)
    model = teacher.model
    assert model is not None  # only a saved teacher has none
    classifier = sequence_classifier.SequenceClassifier(
        model.model, model.max_length, model.revision
    )
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
