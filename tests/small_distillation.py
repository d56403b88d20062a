"""A whole distillation through the plain functions, in the order of `flows/distill.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from builders import make_footprint, make_latency
from samples import CLASSES

from distill_tasks.config import DistillConfig, parse_config
from distill_tasks.data.corpus import Corpus
from distill_tasks.results.findings import Findings
from distill_tasks.results.grid import Grid, Trial, first_trials
from distill_tasks.results.outcomes import Latencies
from distill_tasks.results.run import start_run
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.export import export_all
from distill_tasks.stages.halve import halve_grid
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.measure import measure_all
from distill_tasks.stages.prepare import keep_corpus
from distill_tasks.stages.prove import prove_all
from distill_tasks.stages.select import find_finalists, make_field, select_candidate
from distill_tasks.stages.tune import draw_learning_curve, tune_objective

GOOD, POOR = "bag-of-words-3000", "bag-of-words-15"
"""A student that reads all words, and one that reads hardly any."""
P95_MS = {GOOD: 0.4, POOR: 0.2}
"""Latencies under which both are on the front."""


def distil(
    config: DistillConfig,
    corpus: Corpus,
    p95_ms: dict[str, float] | None = None,
    finalists: list[str] | None = None,
) -> Findings:
    """Distil without Prefect and MLflow, on given latencies or finalists where there are any."""
    kept = keep_corpus(config, corpus)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher)
    run = start_run(config, kept, teacher, labels)
    tuning = tune_objective(run.open())
    run = replace(run, objective=tuning.objective)
    opened = run.open()

    def train(trial: Trial):
        return train_one(opened, trial)

    def field():
        return make_field(opened, grid.students, scores, latencies)

    halving = halve_grid(opened)
    grid = export_all(opened, Grid().add(halving.remaining(first_trials(config)), train))
    scores = score_all(opened, grid.students, "validation")
    if p95_ms is None:
        latencies = measure_all(opened, grid.students)
    else:
        by_name = {name: make_latency(milliseconds) for name, milliseconds in p95_ms.items()}
        footprints = {name: make_footprint() for name in p95_ms}
        latencies = Latencies(by_name, footprints, {}, reused=False)
    if finalists is None:
        finalists = find_finalists(field(), config.select, config.evaluate.finalists)
    grid = export_all(opened, grid.add(grid.further_trials(config, finalists), train))
    scores = score_all(opened, grid.students, "validation")
    selection = select_candidate(field(), finalists, config.select)
    tested = grid.of(finalists)
    return Findings(
        run=run,
        tuning=tuning,
        halving=halving,
        grid=grid,
        validation=scores,
        held_out=score_all(opened, tested, "held_out"),
        latencies=latencies,
        selection=selection,
        proof=prove_all(opened, tested, selection.leading),
        curve=draw_learning_curve(opened),
    )


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


def write_rows(folder: Path) -> dict[str, Any]:
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
        "registry": {"model": "small"},
    }


def write_evil_rows(folder: Path) -> dict[str, Any]:
    """Write rows that try to break out of a page, with slices and a production sample."""
    written = write_rows(folder)
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


def parse(written: dict[str, Any]) -> DistillConfig:
    """Return the configuration of plain data."""
    return parse_config(written, "test")
