"""Stages ``teach`` and ``label``: the teacher is made once, and answers every row once."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial

import numpy as np

from distill_tasks.config import DistillConfig
from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Note, Rank
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.near_repeats import keep_near_repeats
from distill_tasks.data.sampling import keep_sample
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.execution.base import map_at_once
from distill_tasks.llm.label_prior import (
    FEWEST_ROWS,
    PriorChoice,
    choose_prior,
    estimate_prior,
)
from distill_tasks.problems.classification import find_known
from distill_tasks.results.labelling import can_shard, label_shard, list_shards
from distill_tasks.results.references import CorpusReference, LabelsReference, TeacherReference
from distill_tasks.results.sampling import find_sample, list_rounds
from distill_tasks.results.teacher import find_labels, make_teacher, teacher_context
from distill_tasks.stages.stage import stage
from distill_tasks.teachers.keeping import keep_answers

logger = logging.getLogger("potstill")


def label_rows(
    config: DistillConfig,
    corpus: Corpus,
    teacher: TeacherReference,
    asked: int = 0,
    began: float | None = None,
) -> LabelsReference:
    """Ask the teacher for every text that it labels and has not answered before.

    A row of validation or held-out that it does not answer is kept as one that it knows nothing
    of: all classes are equally likely. ``asked`` says about how many rows it was asked already,
    since ``began``.
    """
    root = find_labels(config)
    answers, store = SoftLabelStore(root, teacher.digest, teacher.classes), Store(config.work_dir)
    spent = store.manifest("labelling", teacher.digest, "seconds") or {"seconds": 0.0}
    start = time.monotonic() if began is None else began
    context = teacher_context(config, corpus, teacher.model, teacher.identity)
    for texts in list_rounds(config, corpus, answers):
        if due := answers.missing(texts):
            logger.info("label: asking the teacher for %d of %d rows", len(due), len(texts))
            keep_answers(config.teacher.answers(due, context), due, answers)
            asked += len(due)
    if asked:
        _settle_evaluation(corpus, answers)
        spent["seconds"] += time.monotonic() - start
        store.keep("labelling", teacher.digest, spent)
    learnt = keep_sample(corpus, find_sample(config, corpus))
    return LabelsReference(
        root=root,
        teacher=teacher.digest,
        classes=teacher.classes,
        asked=asked,
        seconds=spent["seconds"],
        reused=not asked,
        prior=_choose_prior(learnt, answers) if config.teacher.may_lean(context) else None,
    )


def drop_unanswered(
    config: DistillConfig, corpus: CorpusReference, labels: LabelsReference
) -> CorpusReference:
    """Return the corpus without the training rows that the teacher was not asked, or not answered.

    Raises InputError if none of train is left.
    """
    rows = corpus.open()
    asked = keep_sample(rows, find_sample(config, rows))
    unanswered = set(labels.open().missing(asked.texts))
    if asked is rows and not unanswered:
        return corpus
    kept = asked.keep_texts(set(asked.texts) - unanswered)
    if "train" not in kept.splits:
        raise InputError(
            f"The teacher answered none of the {len(asked.splits['train']):,} rows of train. "
            "Look at its answers, and correct the teacher."
        )
    left_out = sum(len(split) - len(kept.splits.get(n, ())) for n, split in asked.splits.items())
    if left_out:
        about = f"{left_out:,} rows are left out: the teacher did not answer them"
        kept = replace(kept, findings=(*kept.findings, Note(Rank.KNOW, about)))
    store = Store(config.work_dir)
    keep_near_repeats(store, kept, larger=rows)
    reference = CorpusReference.keep(store, kept, corpus.report)
    return replace(reference, whole=corpus.folder)


@stage("make the teacher")
def teach(
    config: DistillConfig, corpus: CorpusReference, identity: str | None = None
) -> TeacherReference:
    """Make the teacher, or find it made; ``identity`` is what it said of itself, if asked."""
    return make_teacher(config, corpus.open(), identity)


@stage("ask the teacher about every row", retries=2)
def label(
    config: DistillConfig, corpus: CorpusReference, teacher: TeacherReference
) -> LabelsReference:
    """Have every row answered by the teacher, by several processes at once where it may be."""
    began, asked = time.monotonic(), label_in_shards(config, corpus, teacher)
    return label_rows(config, corpus.open(), teacher, asked=asked, began=began)


def label_in_shards(
    config: DistillConfig, corpus: CorpusReference, teacher: TeacherReference
) -> int:
    """Have workers ask the teacher, shard by shard, and return about how many rows.

    There are none where one process asks about everything.
    """
    shards = list_shards(config, corpus, teacher) if can_shard(config) else []
    with config.execution.start(len(shards)) as workers:

        def ask(prefix: str) -> int:
            ask_one = partial(label_shard, config, corpus, teacher=teacher, prefix=prefix)
            rows: int = workers.call(f"label shard {prefix}", ask_one)
            return rows

        return sum(map_at_once(ask, shards, workers.at_once))


def _choose_prior(corpus: Corpus, answers: SoftLabelStore) -> PriorChoice | None:
    """Compare answers with those divided by the label prior, the mean answer to training rows.

    None where too few rows of validation have gold and an answer.
    """
    validation, training = corpus.splits["validation"], corpus.training_rows.texts
    unanswered = set(answers.missing(training))
    said = answers.read([text for text in training if text not in unanswered]).logits
    told = answers.read(validation.texts).logits
    known = (told != 0).any(axis=1) & find_known(validation.gold)
    if known.sum() < FEWEST_ROWS or not len(said):
        return None
    return choose_prior(told[known], validation.gold[known], estimate_prior(said))


def _settle_evaluation(corpus: Corpus, answers: SoftLabelStore) -> None:
    """Let all classes be equally likely in unanswered rows of validation and held-out."""
    if unanswered := answers.missing(corpus.evaluation_texts):
        logger.warning(
            "label: the teacher did not answer %d rows of validation and held-out; there it counts "
            "as knowing nothing",
            len(unanswered),
        )
        answers.add(unanswered, np.zeros((len(unanswered), len(answers.classes)), np.float32))
