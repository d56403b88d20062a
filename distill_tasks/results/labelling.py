"""Labelling in shards: the rows whose digests begin alike, asked in whatever process has room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.data.soft_labels import SoftLabelStore, digest_prefix
from distill_tasks.results.teacher import find_labels, teacher_context
from distill_tasks.teachers.keeping import keep_answers

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.results.references import CorpusReference, TeacherReference

PREFIXES = tuple("0123456789abcdef")
"""How the digests of rows begin, one shard each: what a shard holds depends on its rows alone."""


def can_shard(config: DistillConfig) -> bool:
    """Return whether rows are labelled in shards: workers may answer, and all rows are known.

    A sample that is chosen by what was answered before grows round by round.
    """
    sample = config.data.sample
    grows = sample is not None and sample.kind == "uncertain"
    return config.teacher.in_shards and not grows and not config.execution.is_here


def label_shard(
    config: DistillConfig, corpus: CorpusReference, teacher: TeacherReference, prefix: str
) -> int:
    """Ask the teacher for the missing rows of one shard, in the process that this is called in.

    Returns how many there were.
    """
    rows = corpus.open()
    answers = SoftLabelStore(find_labels(config), teacher.digest, teacher.classes)
    context = teacher_context(config, rows, teacher.model, teacher.identity)
    due = [text for text in answers.missing(context.texts) if digest_prefix(text) == prefix]
    if due:
        about = f"labelling shard {prefix}"
        keep_answers(config.teacher.answers(due, context), due, answers, about)
    return len(due)


def list_shards(
    config: DistillConfig, corpus: CorpusReference, teacher: TeacherReference
) -> list[str]:
    """Return the shards that have rows without an answer."""
    answers = SoftLabelStore(find_labels(config), teacher.digest, teacher.classes)
    context = teacher_context(config, corpus.open(), teacher.model, teacher.identity)
    due = {digest_prefix(text) for text in answers.missing(context.texts)}
    return [prefix for prefix in PREFIXES if prefix in due]
