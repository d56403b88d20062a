"""Stages ``check`` and ``prepare``: refuse what cannot work, then keep the rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError
from distill_tasks.core.memory import find_memory_gb
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.near_repeats import keep_near_repeats
from distill_tasks.data.report import DataReport
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.sampling import check_sample, keep_sample
from distill_tasks.data.scored import hold_back
from distill_tasks.reporting.data_report import inspect_corpus
from distill_tasks.results.references import CorpusReference
from distill_tasks.results.sampling import find_sample
from distill_tasks.results.teacher import teacher_context
from distill_tasks.stages.stage import stage
from distill_tasks.students import Student
from distill_tasks.students.controls import WORDS_ON_GOLD, has_words_on_gold
from distill_tasks.students.formats import choose_variants
from distill_tasks.students.search_space import check_optuna
from distill_tasks.tracking.store import check_experiment, check_tracking
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.probe import check_reading, probe

REPORT_VERSION = 4
"""Raised when a change of the code changes the data report."""


def check_config(config: DistillConfig) -> Corpus:
    """Check everything that can be checked before expensive work, and return the corpus.

    Raises InputError for the first thing that would fail later.
    """
    Store(config.work_dir).check_writable()
    config.execution.check(Path(config.work_dir))
    choose_variants(config.export)
    if config.search.optuna is not None:
        check_optuna()
    _check_device(config.measure.device)
    classes = _check_teacher(config)
    _check_own_starts(config)
    corpus = read_corpus(config.data, config.seed, classes, config.problem)
    found = config.teacher.check_rows(corpus, config.data)
    found += config.select.check_rows(corpus)
    config.evaluate.check_rows(corpus)
    corpus = replace(corpus, findings=(*corpus.findings, *found))
    corpus = hold_back(corpus, _count_scored(config, corpus), config.seed)
    found = check_sample(corpus, config.data.sample, config.seed)
    corpus = replace(corpus, findings=(*corpus.findings, *found))
    _check_control(config, corpus)
    _check_memory(config, corpus)
    _check_reading(config, corpus)
    check_tracking(config.tracking)
    check_experiment(config.tracking)
    found = config.teacher.probe(teacher_context(config, corpus))
    return replace(corpus, findings=(*corpus.findings, *found))


def keep_corpus(config: DistillConfig, corpus: Corpus) -> CorpusReference:
    """Keep the checked rows and the report on them in the store."""
    report = report_on_data(config, corpus)
    return CorpusReference.keep(Store(config.work_dir), corpus, report)


def report_on_data(config: DistillConfig, corpus: Corpus) -> DataReport:
    """Return the data report, kept for these rows and this tokenizer."""
    reader = config.teacher.start
    read = reader and [reader.digest(), reader.max_length]
    key = digest(REPORT_VERSION, corpus.digest, read)
    store = Store(config.work_dir)

    def inspect() -> DataReport:
        tokens = None if reader is None else _count_tokens(reader, corpus)
        length = None if reader is None else reader.max_length
        return inspect_corpus(
            corpus, tokens, length, keep_near_repeats(store, corpus).place(corpus)
        )

    return store.remember("data_reports", key, DataReport, inspect)[0]


@stage("check and keep the rows", retries=2)
def prepare(config: DistillConfig) -> CorpusReference:
    """Check the configuration and keep the rows."""
    return keep_corpus(config, check_config(config))


def _check_teacher(config: DistillConfig) -> tuple[str, ...] | None:
    """Check the teacher and what is asked of its weights; return its classes if it has them."""
    classes = config.teacher.check(config.data, config.problem)
    if config.teacher.start is not None:
        _check_weights(config, config.teacher.start)
    return classes


def _check_weights(config: DistillConfig, start: Checkpoint) -> None:
    """Check the teacher's model, and that students can be made of it."""
    opened, tokenizer = probe(start, "teacher.max_length", ready=config.teacher.ready)
    families: dict[type[Student], list[Student]] = {}
    for student in config.possible_students:
        families.setdefault(type(student), []).append(student)
    for family, students in families.items():
        family.check_teacher(students, opened, tokenizer, config.loss.terms)


def _check_own_starts(config: DistillConfig) -> None:
    """Check each model that students bring themselves, once."""
    for student in _find_own_starts(config).values():
        student.check_own_start(config.teacher.start)


def _find_own_starts(config: DistillConfig) -> dict[Checkpoint, Student]:
    """Return the models that students bring themselves, each once, with one that does."""
    teacher = config.teacher.start
    starts = [(student.own_start(teacher), student) for student in config.possible_students]
    return {start: student for start, student in starts if start is not None}


def _check_reading(config: DistillConfig, corpus: Corpus) -> None:
    """Check that rows are read in serving as they are in training, whoever's tokens they are."""
    from distill_tasks.training.tokens import pick_rows

    texts = [corpus.texts[row] for row in pick_rows(corpus.texts)]
    reader = config.teacher.start
    for start in [*([reader] if reader else []), *_find_own_starts(config)]:
        check_reading(start, texts)


def _count_scored(config: DistillConfig, corpus: Corpus) -> int:
    """Return how many transfer rows are held back to score students by, of those in a sample."""
    transfer = len(corpus.splits.get("transfer", ()))
    sample = config.data.sample
    return config.select.count_scored(transfer if sample is None else min(transfer, sample.rows))


def _check_control(config: DistillConfig, corpus: Corpus) -> None:
    """Check that the cheap control can be trained where it is what will be registered."""
    if config.registry.candidate == WORDS_ON_GOLD and not has_words_on_gold(corpus.splits["train"]):
        raise InputError(
            f"registry.candidate is {WORDS_ON_GOLD}, but data.train has no gold with words to "
            "learn it from. Label train, or register the chosen student."
        )


def _check_memory(config: DistillConfig, corpus: Corpus) -> None:
    """Check that each student can be trained in the memory that is here."""
    learnt = keep_sample(corpus, find_sample(config, corpus))
    memory_gb, texts = find_memory_gb(), learnt.training_rows.texts
    for student in config.possible_students:
        student.check_memory(texts, len(corpus.classes), memory_gb)


def _check_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                "measure.device is cuda, but torch finds no CUDA device here. Set it to cpu."
            )


def _count_tokens(reader: Checkpoint, corpus: Corpus) -> dict[str, NDArray[np.int64]]:
    """Return the number of tokens of every row (rows,) by split, at most one more than are read."""
    from distill_tasks.training.tokens import encode

    tokenizer = reader.open_tokenizer()
    return {
        name: np.array(
            [len(ids) for ids in encode(tokenizer, split.texts, reader.max_length + 1)["input_ids"]]
        )
        for name, split in corpus.splits.items()
    }
