"""A student's folder: its description, by which `served_model` opens it, and its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distill_tasks.answers import Answering, answer_sorted
from distill_tasks.calibration import Calibration, calibrate
from distill_tasks.corpus import Split
from distill_tasks.problem import Problem
from distill_tasks.served_model import ABOUT, open_model
from distill_tasks.students.lesson import Lesson
from distill_tasks.teachers.sequence_classifier import SequenceClassifier

SERVED = "student"
"""The folder, inside a student's place in the store, that is measured and served as it is."""


def describe_model(folder: Path, runtime: str, lesson: Lesson, **settings: Any) -> None:
    """Write the description beside the weights: runtime, problem, classes in logit order."""
    about = {
        "runtime": runtime,
        "problem": lesson.problem,
        "classes": list(lesson.classes),
        **settings,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")


def open_halted(folder: Path) -> Answering:
    """Open a transformer on its way, to be compared with others on theirs.

    It answers in the precision that is fastest here, several times faster than as it is served.
    """
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return SequenceClassifier(folder, about["max_length"])


def calibrate_folder(
    folder: Path, validation: Split, problem: Problem, precision: float | None, name: str
) -> Calibration:
    """Fit the calibration of a model on validation, and write it into its description."""
    model = open_model(folder)
    logits = answer_sorted(model, validation.texts, name)
    gold = validation.decisions(len(model.classes))
    fitted = calibrate(logits, gold, problem, precision)
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    (folder / ABOUT).unlink()  # maybe a link: the trained folder keeps its own
    described = json.dumps(about | {"calibration": fitted.to_json()}, indent=2)
    (folder / ABOUT).write_text(described, encoding="utf-8")
    return fitted


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
