"""Rows that can be learnt, names and settings that many tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
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
TEACHER_VARIANTS = ("teacher-onnx", "teacher-onnx-int8")


def write_splits(folder: Path) -> Path:
    """Write train, transfer and held_out as parquet; return the folder that they lie in."""
    rows, data = make_rows(300, seed=1), folder / "data"
    data.mkdir()
    rows[:90].to_parquet(data / "train.parquet", index=False)
    rows[90:200][["text"]].to_parquet(data / "transfer.parquet", index=False)
    rows[200:].to_parquet(data / "held_out.parquet", index=False)
    return data


def write_settings(folder: Path, data: Path, base: Path) -> dict[str, Any]:
    """Return a small configuration as plain data, everything under one folder."""
    return {
        "name": "animals",
        "seed": 7,
        "work_dir": str(folder / "work"),
        "data": {
            "validation_share": 0.2,
            "train": str(data / "train.parquet"),
            "transfer": str(data / "transfer.parquet"),
            "held_out": str(data / "held_out.parquet"),
        },
        "teacher": {
            "kind": "finetune",
            "base": str(base),
            "max_length": 16,
            "epochs": 8,
            "learning_rate": 0.005,
        },
        "students": [
            {"family": "layers", "layers": [1, 2], "epochs": 1},
            {"family": "static", "dimensions": 8, "epochs": 3},
            {"family": "bag_of_words", "max_features": 200},
        ],
        "evaluate": {"seeds": 1, "controls": False},
        "export": {"variants": []},  # tests that are about variants ask for them
        "measure": {"calls": 20, "batch_rows": [4]},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "test"},
        "registry": {"model": "animals", "first": "any"},
    }


GOOD, POOR = "bag-of-words-3000", "bag-of-words-15"
"""A student that reads all words, and one that reads hardly any."""
EVIL_CLASS = "<script>alert(1)</script>|[cats](http://evil.example) <a href='x'>y</a>"
EVIL_TEXT = "<img src=x onerror=alert(2)> | `row` ![x](http://evil.example/x.png) [/red]"
"""A class and a beginning of texts that want to be more than text."""


def make_wordy_rows(count: int, seed: int, season: str = "old") -> pd.DataFrame:
    """Return rows of 2 of their class's 90 words each, so that few rows do not show them all.

    Another season has words of its own.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label = CLASSES[number % len(CLASSES)]
        words = [f"{season}{label}{word}" for word in generator.choice(90, 2, replace=False)]
        fillers = [f"{season}filler{word}" for word in generator.choice(20, 5)]
        rows.append((" ".join([*words, *fillers, f"row{seed}x{number}"]), label))
    return pd.DataFrame(rows, columns=["text", "label"])


def write_words(folder: Path) -> dict[str, Any]:
    """Write splits and a saved teacher's answers, one in twenty wrong; return a configuration."""
    splits = {
        "train": make_wordy_rows(60, seed=1),
        "validation": make_wordy_rows(90, seed=2),
        "transfer": make_wordy_rows(240, seed=3),
        "held_out": make_wordy_rows(200, seed=4),
    }
    for name, rows in splits.items():
        rows.to_parquet(folder / f"{name}.parquet", index=False)
    save_answers([*splits.values()], folder / "answers.parquet", wrong=0.05)
    return {
        "name": "small",
        "seed": 7,
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / f"{name}.parquet") for name in splits},
        "teacher": {"kind": "saved", "path": str(folder / "answers.parquet")},
        "students": [{"family": "bag_of_words", "max_features": [3000, 15]}],
        "evaluate": {"finalists": 2},
        "select": {"choose": "most_accurate"},
        "measure": {"calls": 20, "batch_rows": [4]},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "small"},
        "registry": {"model": "small", "first": "any"},
    }


def write_evil_words(folder: Path) -> dict[str, Any]:
    """Write rows that try to break out of a page, with slices and a production sample."""
    written = write_words(folder)
    for name in ("train", "validation", "transfer", "held_out"):
        rows = pd.read_parquet(folder / f"{name}.parquet").replace({"label": {"cats": EVIL_CLASS}})
        rows["text"] = f"{EVIL_TEXT} " + rows["text"]
        rows["source"] = [("mail", "</script>")[row % 2] for row in range(len(rows))]
        rows.to_parquet(folder / f"{name}.parquet", index=False)
    answers = pd.read_parquet(folder / "answers.parquet").rename(columns={"cats": EVIL_CLASS})
    answers["text"] = f"{EVIL_TEXT} " + answers["text"]
    answers.to_parquet(folder / "answers.parquet", index=False)
    further = {"slice_column": "source", "production": str(folder / "held_out.parquet")}
    return written | {"data": written["data"] | further, "loss": {"alpha": "auto"}}


def save_answers(splits: list[pd.DataFrame], path: Path, wrong: float) -> None:
    """Write what a teacher says that is wrong about a share of the rows."""
    rows = pd.concat(splits)
    gold = rows["label"].map(CLASSES.index).to_numpy()
    mistaken = np.random.default_rng(0).random(len(rows)) < wrong
    said = 0.05 + 0.85 * np.eye(3)[(gold + mistaken) % 3]
    frame = pd.DataFrame(said, columns=list(CLASSES))
    frame.assign(text=rows["text"].to_numpy()).to_parquet(path, index=False)


def make_quick(written: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return small settings with saved answers and students that train in no time."""
    save_answers([make_rows(300, seed=1)], folder / "answers.parquet", wrong=0.05)
    teacher = {"kind": "saved", "path": str(folder / "answers.parquet")}
    students = [{"family": "bag_of_words", "max_features": [50, 200]}]
    return written | {"teacher": teacher, "students": students, "evaluate": {}}
