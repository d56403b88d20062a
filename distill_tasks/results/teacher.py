"""The teacher of a run, trained into the store if needed."""

from __future__ import annotations

import logging
import time

from distill_tasks.config import DistillConfig
from distill_tasks.core.progress import ProgressFile
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.results.references import TeacherReference
from distill_tasks.results.sampling import find_sample
from distill_tasks.teachers.base import LabellingContext, join_identity
from distill_tasks.training.checkpoint import Checkpoint

logger = logging.getLogger("potstill")


def identify_teacher(config: DistillConfig, corpus: Corpus) -> str:
    """Return what the teacher's answers depend on beside its settings; empty if nothing.

    An endpoint is asked for that, and a registered model looked up: once in a run.
    """
    teacher = config.teacher
    return teacher.identify(teacher_context(config, corpus)) if teacher.ready else ""


def make_teacher(
    config: DistillConfig, corpus: Corpus, identity: str | None = None
) -> TeacherReference:
    """Return the configured teacher, trained first if it is not ready and not in the store.

    ``identity`` is what `identify_teacher` returned, if it was called.
    """
    teacher, digest = config.teacher, digest_teacher(config, corpus)
    if not teacher.ready:
        return _train(config, corpus, digest)
    identity = identify_teacher(config, corpus) if identity is None else identity
    digest = join_identity(digest, identity)
    return TeacherReference(digest, corpus.classes, teacher.start, 0.0, [], True, identity)


def teacher_context(
    config: DistillConfig, corpus: Corpus, weights: Checkpoint | None = None, identity: str = ""
) -> LabellingContext:
    """Return what the teacher of a run has at hand when it answers."""
    return LabellingContext(
        corpus,
        config.data,
        Store(config.work_dir),
        weights,
        config.tracking.uri,
        identity,
        sample=find_sample(config, corpus),
    )


def digest_teacher(config: DistillConfig, corpus: Corpus) -> str:
    """Return the digest of the configured teacher, also before it is trained."""
    return config.teacher.digest(corpus, config.seed, config.loss.balance_classes)


def find_labels(config: DistillConfig) -> str:
    """Return the folder with the answers of all teachers."""
    return Store(config.work_dir).labels


def _train(config: DistillConfig, corpus: Corpus, digest: str) -> TeacherReference:
    store, start = Store(config.work_dir), config.teacher.start
    assert start is not None  # a teacher that is trained has a base
    manifest = store.manifest("teachers", digest, "curve", "seconds")
    reused = manifest is not None
    if manifest is None:
        rows = len(corpus.splits["train"])
        logger.info("teach: fine-tuning %s on %d rows", start.model, rows)
        began, manifest = time.monotonic(), {}
        progress = ProgressFile(store.root, "teacher")
        with store.build("teachers", digest, manifest) as draft, progress.told():
            manifest["curve"] = config.teacher.train(
                corpus,
                draft,
                seed=config.seed,
                balanced=config.loss.balance_classes,
                progress=progress,
            )
            manifest["seconds"] = time.monotonic() - began
    model = Checkpoint(store.folder("teachers", digest), None, start.max_length)
    return TeacherReference(
        digest, corpus.classes, model, manifest["seconds"], manifest["curve"], reused
    )
