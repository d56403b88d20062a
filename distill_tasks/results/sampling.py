"""The sample of a run: known at once, or chosen in rounds by what a student is least sure of."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.core.digests import digest, digest_texts
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import LEARNT, Corpus
from distill_tasks.data.sampling import list_asked, order_texts
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.problems.classification import find_margins, probabilities
from distill_tasks.scoring.predictions import answer_sorted
from distill_tasks.serving.served_model import open_model
from distill_tasks.students import QUICKEST
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.objective import Objective

logger = logging.getLogger("potstill")

FIRST_ROWS, GROWTH = 200, 1.5
"""Texts that are taken before any student is trained, and by what each round multiplies them."""
BY_ORDER = (0, 3, 6)
"""Which of ten texts in a row are the next ones in order, however sure of them the student is."""
OBJECTIVE = Objective(temperature=1.0, alpha=1.0)
"""What the student lowers: it learns the teacher's answers alone."""


def find_sample(config: DistillConfig, corpus: Corpus) -> list[str] | None:
    """Return the texts of train and transfer that the teacher labels; None if it labels all.

    While a sample by uncertainty is not chosen to its end, other texts stand in for the rest.
    """
    sample = config.data.sample
    if sample is None:
        return None
    order = order_texts(corpus, sample, config.seed)
    chosen = _recall(config, corpus, order) if sample.kind == "uncertain" else []
    return list(dict.fromkeys([*chosen, *order]))[: sample.rows]


def list_rounds(
    config: DistillConfig, corpus: Corpus, answers: SoftLabelStore
) -> Iterator[list[str]]:
    """Yield the texts that the teacher is asked about, round by round.

    Each round but the first is chosen by the answers to those before, and is remembered, so that
    the choice is the same in the next run and goes on after a kill. Where rounds end does not
    depend on the size of the sample: a larger one begins with the same texts.
    """
    sample = config.data.sample
    if sample is None or sample.kind != "uncertain":
        yield list_asked(corpus, find_sample(config, corpus))
        return
    order = order_texts(corpus, sample, config.seed)
    rows, chosen = min(sample.rows, len(order)), _recall(config, corpus, order)
    yield list_asked(corpus, chosen[:rows])
    while len(chosen) < rows:
        further = _choose(corpus, order, chosen, answers, seed=config.seed)[: rows - len(chosen)]
        chosen = [*chosen, *further]
        kept = {"texts": digest_texts(chosen)}
        Store(config.work_dir).keep("samples", _digest(config, corpus), kept)
        yield further


def _recall(config: DistillConfig, corpus: Corpus, order: Sequence[str]) -> list[str]:
    """Return the texts that were chosen in earlier rounds, in their order."""
    kept = Store(config.work_dir).manifest("samples", _digest(config, corpus), "texts")
    if kept is None:
        return list(order[:FIRST_ROWS])
    names = dict(zip(digest_texts(order), order, strict=True))
    return [names[name] for name in kept["texts"]]


def _digest(config: DistillConfig, corpus: Corpus) -> str:
    teacher = config.teacher.digest(corpus, config.seed, config.loss.balance_classes)
    rows = [corpus.splits[name].digest for name in LEARNT if name in corpus.splits]
    return digest(teacher, rows, config.seed)


def _choose(
    corpus: Corpus,
    order: Sequence[str],
    chosen: Sequence[str],
    answers: SoftLabelStore,
    *,
    seed: int,
) -> list[str]:
    """Return what follows the chosen texts in their round, chosen by the answers before it."""
    start = end = FIRST_ROWS
    while end <= len(chosen):
        start, end = end, int(GROWTH * end)
    before, done = set(chosen[:start]), set(chosen)
    rest = [text for text in order if text not in before]
    margins = _ask_student(corpus, chosen[:start], rest, answers, seed=seed)
    gold = set(corpus.splits["train"].texts) if corpus.splits["train"].has_gold else set()
    unsure = sorted(range(len(rest)), key=lambda row: (rest[row] not in gold, margins[row]))
    texts = _interleave(rest, [rest[row] for row in unsure], min(end - start, len(rest)))
    return [text for text in texts if text not in done]


def _ask_student(
    corpus: Corpus,
    labelled: Sequence[str],
    texts: Sequence[str],
    answers: SoftLabelStore,
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Return the margins (texts,) of a student that learns the answers to other texts.

    Source: Scheffer, Decomain and Wrobel 2001, "Active Hidden Markov Models for Information
    Extraction", for choosing by the margin.
    """
    unanswered = set(answers.missing(labelled))
    known = [text for text in labelled if text not in unanswered]
    if not known:
        return np.zeros(len(texts))
    logger.info("label: %s learns from %d answers what to ask next", QUICKEST.name, len(known))
    rows = corpus.training_rows
    places = {text: row for row, text in enumerate(rows.texts)}
    training_set = TrainingSet(
        rows=rows.take(np.array([places[text] for text in known])),
        soft_labels=answers.read(known),
        validation=corpus.splits["validation"],
        classes=corpus.classes,
        objective=OBJECTIVE,
        seed=seed,
        teacher=None,
        problem=corpus.problem,
    )
    with tempfile.TemporaryDirectory() as folder:
        QUICKEST.train(training_set, Path(folder))
        logits = answer_sorted(open_model(folder), texts, QUICKEST.name)
    return find_margins(probabilities(logits, corpus.problem), corpus.problem)


def _interleave(order: Sequence[str], unsure: Sequence[str], count: int) -> list[str]:
    """Return so many texts, three of ten the next ones in order, the others the least sure ones."""
    taken: dict[str, None] = {}
    by_order, by_margin = iter(order), iter(unsure)
    while len(taken) < count:
        source = by_order if len(taken) % 10 in BY_ORDER else by_margin
        taken[next(text for text in source if text not in taken)] = None
    return list(taken)
