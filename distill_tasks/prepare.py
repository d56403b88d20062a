"""Stages ``check`` and ``prepare``: refuse what cannot work, then keep the rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distill_tasks.config import DistillConfig
from distill_tasks.corpus import Corpus, read_corpus
from distill_tasks.errors import InputError
from distill_tasks.stage import stage
from distill_tasks.store import Store
from distill_tasks.students import LayersStudent
from distill_tasks.students.layers import choose_layers
from distill_tasks.teachers import (
    FinetuneTeacher,
    SavedTeacher,
    TransformersTeacher,
    saved,
    sequence_classifier,
)
from distill_tasks.tracking import check_tracking


@dataclass(frozen=True)
class CorpusReference:
    """Where the checked rows of this run lie."""

    digest: str
    folder: Path
    reused: bool

    def open(self) -> Corpus:
        """Read the corpus."""
        return Corpus.open(self.folder)


def check_config(config: DistillConfig) -> Corpus:
    """Check everything that can be checked before expensive work, and return the corpus.

    Raises InputError for the first thing that would fail later.
    """
    Store(config.work_dir).check_writable()
    classes = _check_teacher(config)
    corpus = read_corpus(config.data, config.seed, classes)
    match config.teacher:
        case TransformersTeacher():
            sequence_classifier.check_classes(config.teacher, corpus.classes)
        case SavedTeacher():
            _check_saved_rows(config.teacher, config.data.text_column, corpus)
        case FinetuneTeacher() if not corpus.splits["train"].has_gold:
            raise InputError(
                "teacher.kind finetune needs gold labels in data.train. "
                "Set data.label_column, or use a teacher that is ready."
            )
    check_tracking(config.tracking)
    return corpus


def keep_corpus(config: DistillConfig, corpus: Corpus) -> CorpusReference:
    """Keep the checked rows in the store under their digest."""
    store = Store(config.work_dir)
    folder = store.folder("corpus", corpus.digest)
    if store.manifest("corpus", corpus.digest):
        return CorpusReference(corpus.digest, folder, reused=True)
    rows = {name: len(split) for name, split in corpus.splits.items()}
    with store.build("corpus", corpus.digest, {"rows": rows}) as draft:
        corpus.save(draft)
    return CorpusReference(corpus.digest, folder, reused=False)


@stage("prepare {config.name}", retries=2)
def prepare(config: DistillConfig) -> CorpusReference:
    """Check the configuration and keep the rows."""
    return keep_corpus(config, check_config(config))


def _check_teacher(config: DistillConfig) -> tuple[str, ...] | None:
    """Check the teacher's files and the layers asked of it; return its classes if it has them."""
    match config.teacher:
        case SavedTeacher():
            return saved.read_answers(config.teacher, config.data.text_column, None)[2]
        case FinetuneTeacher(base=model) | TransformersTeacher(model=model):
            teacher = config.teacher
            depth = sequence_classifier.read_depth(model, teacher.revision, teacher.max_length)
    for student in config.students:
        if isinstance(student, LayersStudent):
            choose_layers(student.layers, depth)
    if isinstance(config.teacher, TransformersTeacher):
        return sequence_classifier.read_classes(config.teacher)
    return None


def _check_saved_rows(teacher: SavedTeacher, text_column: str, corpus: Corpus) -> None:
    texts, _, _ = saved.read_answers(teacher, text_column, corpus.classes)
    answered = set(texts)
    for name, split in corpus.splits.items():
        absent = [row for row, text in enumerate(split.texts) if text not in answered]
        if absent:
            raise InputError(
                f"Saved answers {teacher.path} lack {len(absent)} rows of {name}, the first being "
                f"{split.texts[absent[0]][:60]!r}. Add their answers, or drop these rows."
            )
