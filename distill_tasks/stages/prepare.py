"""Stages ``check`` and ``prepare``: refuse what cannot work, then keep the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError
from distill_tasks.core.memory import find_memory_gb
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.report import DataReport
from distill_tasks.data.rows import read_corpus
from distill_tasks.reporting.data_report import inspect_corpus
from distill_tasks.results.references import CorpusReference
from distill_tasks.stages.stage import stage
from distill_tasks.students import (
    BagOfWordsStudent,
    LayersStudent,
    PretrainedStudent,
    bag_of_words,
    pretrained,
)
from distill_tasks.students.formats import choose_variants
from distill_tasks.students.layers import check_copies
from distill_tasks.students.search_space import check_optuna
from distill_tasks.teachers import (
    FinetuneTeacher,
    SavedTeacher,
    TeacherConfig,
    TransformersTeacher,
    saved,
    sequence_classifier,
)
from distill_tasks.tracking.runs import check_experiment, check_tracking
from distill_tasks.training.checkpoint import TeacherModel, digest_model
from distill_tasks.training.probe import check_reading, probe

REPORT_VERSION = 3
"""Raised when a change of the code changes the data report."""


def check_config(config: DistillConfig) -> Corpus:
    """Check everything that can be checked before expensive work, and return the corpus.

    Raises InputError for the first thing that would fail later.
    """
    Store(config.work_dir).check_writable()
    choose_variants(config.export)
    check_optuna(config.search.optuna)
    _check_device(config.measure.device)
    classes = _check_teacher(config)
    _check_pretrained(config)
    corpus = read_corpus(config.data, config.seed, classes, config.problem)
    match config.teacher:
        case TransformersTeacher():
            sequence_classifier.check_classes(config.teacher, corpus.classes, config.problem)
        case SavedTeacher():
            found = _check_saved_rows(config, config.teacher, corpus)
            corpus = replace(corpus, findings=(*corpus.findings, *found))
        case FinetuneTeacher() if not corpus.splits["train"].has_gold:
            raise InputError(
                "teacher.kind finetune needs gold labels in data.train. "
                "Set data.label_column, or use a teacher that is ready."
            )
    _check_memory(config, corpus)
    _check_reading(config, corpus)
    check_tracking(config.tracking)
    check_experiment(config.tracking)
    return corpus


def keep_corpus(config: DistillConfig, corpus: Corpus) -> CorpusReference:
    """Keep the checked rows and the report on them in the store."""
    store = Store(config.work_dir)
    key = digest(corpus.digest, corpus.findings)
    reused = store.manifest("corpus", key) is not None
    if not reused:
        with store.build("corpus", key, {"classes": list(corpus.classes)}) as draft:
            corpus.save(draft)
    folder = store.folder("corpus", key)
    return CorpusReference(corpus.digest, folder, report_on_data(config, corpus), reused)


def report_on_data(config: DistillConfig, corpus: Corpus) -> DataReport:
    """Return the data report, kept for these rows and this tokenizer."""
    reader = _find_reader(config.teacher)
    read = reader and [digest_model(str(reader.model), reader.revision), reader.max_length]
    key = digest(REPORT_VERSION, corpus.digest, read)

    def inspect() -> DataReport:
        tokens = None if reader is None else _count_tokens(reader, corpus)
        return inspect_corpus(corpus, tokens, None if reader is None else reader.max_length)

    return Store(config.work_dir).remember("data_reports", key, DataReport, inspect)[0]


@stage("prepare {config.name}", retries=2)
def prepare(config: DistillConfig) -> CorpusReference:
    """Check the configuration and keep the rows."""
    return keep_corpus(config, check_config(config))


def _check_teacher(config: DistillConfig) -> tuple[str, ...] | None:
    """Check the teacher and the layers asked of it; return its classes if it has them."""
    match config.teacher:
        case SavedTeacher():
            return saved.read_answers(
                config.teacher, config.data.text_column, None, config.problem
            )[2]
        case FinetuneTeacher(base=model) | TransformersTeacher(model=model):
            teacher = config.teacher
    classes = None
    if isinstance(teacher, TransformersTeacher):
        classes = sequence_classifier.read_classes(teacher)
    possible = [*config.students, *config.search.corners]
    copies = [student for student in possible if isinstance(student, LayersStudent)]
    reader = TeacherModel(model, teacher.revision, teacher.max_length)
    opened, tokenizer = probe(reader, "teacher.max_length", ready=classes is not None)
    check_copies(copies, opened, tokenizer)
    if "relations" in config.loss.terms:
        from distill_tasks.training.hidden_states import check_relations

        same_tokens = (student for student in copies if student.reads_as_teacher)
        check_relations((s.width for s in same_tokens if s.width), reader)
    return classes


def _check_pretrained(config: DistillConfig) -> None:
    """Check each model that students bring themselves, once."""
    for start in _find_starts(config):
        pretrained.check_start(start)


def _find_starts(config: DistillConfig) -> list[TeacherModel]:
    """Return the models that students bring themselves, each once."""
    reader = _find_reader(config.teacher)
    possible = [*config.students, *config.search.corners]
    mine = [student for student in possible if isinstance(student, PretrainedStudent)]
    return list(dict.fromkeys(pretrained.find_start(student, reader) for student in mine))


def _check_reading(config: DistillConfig, corpus: Corpus) -> None:
    """Check that rows are read in serving as they are in training, whoever's tokens they are."""
    from distill_tasks.training.tokens import pick_rows

    texts = [corpus.texts[row] for row in pick_rows(corpus.texts)]
    reader = _find_reader(config.teacher)
    for start in [*([reader] if reader else []), *_find_starts(config)]:
        check_reading(start, texts)


def _check_memory(config: DistillConfig, corpus: Corpus) -> None:
    """Check that each student that keeps weights of all its terms can be trained here."""
    memory_gb = find_memory_gb()
    for student in [*config.students, *config.search.corners]:
        if isinstance(student, BagOfWordsStudent):
            texts, classes = corpus.training_rows.texts, len(corpus.classes)
            bag_of_words.check_memory(student, texts, classes, memory_gb)


def _check_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                "measure.device is cuda, but torch finds no CUDA device here. Set it to cpu."
            )


def _find_reader(teacher: TeacherConfig) -> TeacherModel | None:
    """Return whose tokenizer reads the texts; a saved teacher has none here."""
    match teacher:
        case SavedTeacher():
            return None
        case FinetuneTeacher(base=model) | TransformersTeacher(model=model):
            return TeacherModel(model, teacher.revision, teacher.max_length)


def _count_tokens(reader: TeacherModel, corpus: Corpus) -> dict[str, NDArray[np.int64]]:
    """Return the number of tokens of every row (rows,) by split, at most one more than are read."""
    from transformers import AutoTokenizer

    from distill_tasks.training.tokens import encode

    tokenizer = AutoTokenizer.from_pretrained(
        reader.model, revision=reader.revision, trust_remote_code=False
    )
    return {
        name: np.array(
            [len(ids) for ids in encode(tokenizer, split.texts, reader.max_length + 1)["input_ids"]]
        )
        for name, split in corpus.splits.items()
    }


def _check_saved_rows(config: DistillConfig, teacher: SavedTeacher, corpus: Corpus) -> list[str]:
    """Check that every row has an answer, and say what is odd in the answers."""
    texts, logits, _ = saved.read_answers(
        teacher, config.data.text_column, corpus.classes, config.problem
    )
    predictions = set(texts)
    for name, split in corpus.splits.items():
        absent = [row for row, text in enumerate(split.texts) if text not in predictions]
        if absent:
            raise InputError(
                f"Saved answers {teacher.path} lack {len(absent)} rows of {name}, the first being "
                f"{split.texts[absent[0]][:60]!r}. Add their answers, or drop these rows."
            )
    return saved.find_probabilities(teacher, logits, config.problem)
