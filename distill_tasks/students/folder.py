"""A student's folder: its size, and the description by which `served_model` opens it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_tasks.core.errors import PotstillError
from distill_tasks.data.settings import RowFormat
from distill_tasks.problems.classification import Logits, Problem
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.serving.served_model import ABOUT, ServedModel, TokenModel, open_model

ROUNDING = 1e-2
"""Largest difference of a served student, as a share of the largest logit: static students are
saved in 16 bits."""
SERVED = "student"
"""The subfolder of a student's folder in the store that is measured and served as it is."""


def describe_model(
    folder: Path, runtime: str, problem: Problem, classes: Sequence[str], **settings: Any
) -> None:
    """Write the description beside the weights: runtime, problem, classes in logit order."""
    about = {
        "runtime": runtime,
        "problem": problem,
        "classes": list(classes),
        **settings,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")


def check_served(
    folder: Path,
    texts: Sequence[str],
    trained: Logits,
    ids: Sequence[Sequence[int]] | None = None,
) -> None:
    """Raise PotstillError unless a student, opened as it is served, answers as in training.

    ``trained`` are the logits (rows, classes) that training gave for the texts, ``ids`` the token
    ids that training read.
    """
    model = open_model(folder)
    if ids is not None:
        check_reading(model, texts, ids)
    apart = float(np.abs(model.logits(texts) - trained).max(initial=0))
    if not apart <= ROUNDING * (1 + float(np.abs(trained).max(initial=0))):
        raise PotstillError(
            f"the served model answers differently than in training, by up to {apart:.2g} in a "
            "logit. This is a fault of Potstill's: please report it."
        )


def check_reading(model: ServedModel, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
    """Raise PotstillError unless a served model reads the same token ids as training did."""
    assert isinstance(model, TokenModel)  # ids are given for models with tokens only
    for text, ours, theirs in zip(texts, model.token_ids(texts), ids, strict=True):
        if ours != list(theirs):
            raise PotstillError(
                f"the served model reads other tokens than in training, as in {text[:40]!r}. "
                "This is a fault of Potstill's: please report it."
            )


def describe_calibration(folder: Path, calibration: Calibration) -> None:
    """Write the calibration of a model into its description."""
    _describe_further(folder, {"calibration": calibration.to_json()})


def describe_fields(folder: Path, rows: RowFormat) -> None:
    """Write the fields that make up a text into a model's description; nothing if it is one."""
    if rows.fields:
        _describe_further(folder, {"fields": rows.fields, "template": rows.template})


def _describe_further(folder: Path, further: dict[str, Any]) -> None:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    (folder / ABOUT).unlink()  # if it is a link, the trained folder's file must not change
    (folder / ABOUT).write_text(json.dumps(about | further, indent=2), encoding="utf-8")


def count_parameters(folder: Path) -> int:
    """Return the number of weights in a model's safetensors and npz files."""
    import math

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
