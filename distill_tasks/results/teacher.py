"""The teacher of a run, fine-tuned into the store where that is asked."""

from __future__ import annotations

import logging
import time

from distill_tasks.config import DistillConfig
from distill_tasks.core.progress import ProgressFile
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.results.references import TeacherReference
from distill_tasks.teachers import (
    FinetuneTeacher,
    SavedTeacher,
    TransformersTeacher,
    digest_teacher,
    finetune,
    sequence_classifier,
)
from distill_tasks.training.checkpoint import TeacherModel

logger = logging.getLogger("potstill")


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
            balanced, progress = config.loss.balance_classes, ProgressFile(store.root, "teacher")
            with progress.told():
                manifest["curve"] = finetune.fit(
                    teacher, corpus, draft, config.seed, balanced, progress
                )
            manifest["seconds"] = time.monotonic() - start
    return TeacherReference(
        digest, corpus.classes, model, manifest["seconds"], manifest["curve"], reused
    )
