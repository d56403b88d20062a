"""Stage ``train``: one student learns the teacher's answers."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.config import DistillConfig
from distill_tasks.corpus import Corpus
from distill_tasks.digests import digest
from distill_tasks.label import LabelsReference, TeacherReference
from distill_tasks.prepare import CorpusReference
from distill_tasks.soft_labels import SoftLabels
from distill_tasks.stage import stage
from distill_tasks.store import Store
from distill_tasks.students import StudentConfig, train_student
from distill_tasks.students.lesson import Lesson

if TYPE_CHECKING:
    from distill_tasks.training import Curve

logger = logging.getLogger("potstill")

CODE_VERSION = 1
"""Raised when a change of the code changes the students that come out."""

SERVED = "student"
"""The folder, inside a student's place in the store, that is measured and served as it is."""


@dataclass(frozen=True)
class StudentReference:
    """A trained student: the folder that is measured and served."""

    name: str
    digest: str
    folder: Path
    parameters: int
    disk_mb: float
    seconds: float
    curve: list[Curve]
    reused: bool


def train_one(
    config: DistillConfig,
    student: StudentConfig,
    corpus: Corpus,
    soft_labels: SoftLabels,
    teacher: TeacherReference,
) -> StudentReference:
    """Train one student into the store, or find it trained."""
    store = Store(config.work_dir)
    key = digest(
        CODE_VERSION,
        student.model_dump(),
        config.loss.model_dump(),
        config.seed,
        [
            corpus.splits[name].digest
            for name in ("train", "validation", "transfer")
            if name in corpus.splits
        ],
        teacher.digest,
    )
    manifest = store.manifest("students", key)
    reused = manifest is not None
    if manifest is None:
        logger.info("train %s: learning from %d rows", student.name, len(corpus.lesson))
        lesson = Lesson(
            rows=corpus.lesson,
            soft_labels=soft_labels,
            validation=corpus.splits["validation"],
            classes=teacher.classes,
            temperature=config.loss.temperature,
            alpha=config.loss.alpha,
            seed=config.seed,
            teacher=teacher.model,
        )
        start, manifest = time.monotonic(), {"name": student.name}
        with store.build("students", key, manifest) as draft:
            folder = draft / SERVED
            folder.mkdir(exist_ok=True)
            manifest["curve"] = train_student(student, lesson, folder)
            manifest["seconds"] = time.monotonic() - start
            manifest["parameters"] = count_parameters(folder)
            manifest["disk_mb"] = measure_disk_mb(folder)
    return StudentReference(
        name=student.name,
        digest=key,
        folder=store.folder("students", key) / SERVED,
        parameters=manifest["parameters"],
        disk_mb=manifest["disk_mb"],
        seconds=manifest["seconds"],
        curve=manifest["curve"],
        reused=reused,
    )


@stage("train {student.name}")
def train(
    config: DistillConfig,
    student: StudentConfig,
    corpus: CorpusReference,
    labels: LabelsReference,
    teacher: TeacherReference,
) -> StudentReference:
    """Train one student."""
    rows = corpus.open()
    return train_one(config, student, rows, labels.open().read(rows.lesson.texts), teacher)


def count_parameters(folder: Path) -> int:
    """Return the number of weights in a model's safetensors and npz files."""
    import math

    import numpy as np
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            total += sum(math.prod(file.get_slice(key).get_shape()) for key in list(file.keys()))
    for path in folder.glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            total += sum(file[key].size for key in file)
    return total


def measure_disk_mb(folder: Path) -> float:
    """Return the megabytes (10⁶ bytes) of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
