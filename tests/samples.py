"""Rows that can be learnt, and names, that many tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.measuring.footprint import Footprint
from distill_tasks.measuring.latency import Latency
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective

CLASSES = ("cats", "dogs", "fish")
WORDS = {
    "cats": ("purr", "whisker", "kitten", "meow", "claw"),
    "dogs": ("bark", "leash", "puppy", "fetch", "growl"),
    "fish": ("swim", "fin", "gill", "scale", "reef"),
}
FILLERS = ("the", "animal", "likes", "to", "and", "very", "much", "today", "a", "house")


def make_rows(count: int, seed: int) -> pd.DataFrame:
    """Return rows whose class can be read from their words, no two texts alike."""
    generator = np.random.default_rng(seed)
    texts: dict[str, str] = {}
    while len(texts) < count:
        label = CLASSES[len(texts) % len(CLASSES)]
        words = [*generator.choice(WORDS[label], 2), *generator.choice(FILLERS, 6)]
        generator.shuffle(words)
        texts[" ".join(words)] = label
    return pd.DataFrame({"text": list(texts), "label": list(texts.values())})


def make_gold_set(base: Path, count: int) -> TrainingSet:
    """Return a training set whose rows all have gold, from a teacher who is sure and right."""
    rows = make_rows(count, seed=3)
    gold = np.array([CLASSES.index(name) for name in rows["label"]])
    split = Split(tuple(rows["text"]), gold)
    answers = SoftLabels(4 * np.eye(3, dtype=np.float32)[gold], CLASSES, "teacher")
    teacher = Checkpoint(base, None, 16)
    return TrainingSet(split, answers, split, CLASSES, Objective(2.0, 0.9), 5, teacher)


LAYERS, STATIC = "layers-2", "static-1-epochs-1"
WORDS_STUDENT = "bag-of-words-20000-hashed-1"
FAMILIES = (LAYERS, STATIC, WORDS_STUDENT)
LAYERS_ONNX = f"{LAYERS}-onnx"
"""The transformer without torch: quick to open and to measure."""
VARIANTS = (LAYERS_ONNX, f"{LAYERS_ONNX}-int8")


def make_latency(p95_ms: float, noise: float = 0.0) -> Latency:
    """Return times whose mean is half of p95, measured with some noise."""
    ends = {"p50_ms": p95_ms / 2, "p95_ms": p95_ms, "p99_ms": p95_ms * 2}
    return Latency(
        **ends,
        mean_ms=p95_ms / 2,
        intervals={name: (value, value) for name, value in ends.items()},
        by_length=dict.fromkeys(("short", "middle", "long"), p95_ms / 2),
        rows_per_s={"4": 1000.0},
        calls=20,
        threads=1,
        device="this machine",
        aa_p50=noise,
        aa_p95=noise,
    )


def make_footprint(resident_mb: float = 60.0) -> Footprint:
    """Return what a model without torch takes."""
    return Footprint(installed_mb=90.0, cold_start_s=0.25, resident_mb=resident_mb)
