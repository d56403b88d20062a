"""Stage ``measure``: time every student and the teacher side by side."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from distill_tasks.config import DistillConfig
from distill_tasks.corpus import Corpus
from distill_tasks.digests import digest
from distill_tasks.evaluate import TEACHER
from distill_tasks.label import TeacherReference
from distill_tasks.latency import Answers, Latency, describe_machine, time_models
from distill_tasks.prepare import CorpusReference
from distill_tasks.served_model import TransformersModel, open_model
from distill_tasks.stage import stage
from distill_tasks.store import Store
from distill_tasks.train import StudentReference

logger = logging.getLogger("potstill")

CODE_VERSION = 1
"""Raised when a change of the code changes the times that come out."""


@dataclass(frozen=True)
class Latencies:
    """The latency of every model by name; the teacher's is absent where it has no weights here."""

    by_name: dict[str, Latency]
    reused: bool


def measure_all(
    config: DistillConfig,
    corpus: Corpus,
    teacher: TeacherReference,
    students: list[StudentReference],
) -> Latencies:
    """Time all models in one run, or read the times of the same models on this machine."""
    store = Store(config.work_dir)
    held_out = corpus.splits["held_out"]
    key = digest(
        CODE_VERSION,
        describe_machine(),
        config.measure.model_dump(),
        [student.digest for student in students],
        teacher.digest,
        held_out.digest,
    )
    saved = store.manifest("latencies", key)
    if saved is not None:
        return Latencies({name: Latency(**times) for name, times in saved.items()}, reused=True)
    models = _open_models(teacher, students)
    logger.info("measure: %d models, %s", len(models), describe_machine())
    latencies = time_models(models, held_out.texts, config.measure, config.seed)
    manifest = {name: latency.to_json() for name, latency in latencies.items()}
    store.keep("latencies", key, manifest)
    return Latencies(latencies, reused=False)


@stage("measure {config.name}")
def measure(
    config: DistillConfig,
    corpus: CorpusReference,
    teacher: TeacherReference,
    students: list[StudentReference],
) -> Latencies:
    """Time every model."""
    return measure_all(config, corpus.open(), teacher, students)


def _open_models(teacher: TeacherReference, students: list[StudentReference]) -> dict[str, Answers]:
    models: dict[str, Answers] = {
        student.name: open_model(student.folder).answer for student in students
    }
    if teacher.model is not None:
        about = {
            "classes": list(teacher.classes),
            "max_length": teacher.model.max_length,
            "revision": teacher.model.revision,
        }
        models[TEACHER] = TransformersModel(teacher.model.model, about).answer
    return models
