"""What do processes beside each other, and Ray, take for a grid? Eight small students, two cores.

Four static students, whose embeddings start at random, and four bags of words learn from 4,000 made
up rows of 20 classes: one after another in the run's own process, in two processes of this machine,
and as tasks of a Ray of two workers of one core each. What starts is counted, processes and their
imports, but for Ray itself, which is there already where there is a cluster: that start stands
beside. The three take turns, three times; medians.
Prints a table for people and, as its last line, one JSON object:

- ``two_processes_speedup``: seconds one after another over those of two processes.
- ``ray_over_two_processes``: seconds of a Ray that is there over those of two processes.
- ``ray_start_s``: seconds that it takes to start one and to end it.
- ``same_digests``: whether every student is the same wherever it was trained, to the byte.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from reuters import say_machine

from distill_tasks.config import parse_config
from distill_tasks.execution import ExecutionConfig, LocalExecution
from distill_tasks.execution.ray_cluster import RayExecution
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.grid import Grid, first_trials
from distill_tasks.results.run import Run, start_run
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_there
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import check_config, keep_corpus

ROUNDS, ROWS, CLASSES, WORDS = 3, 4_000, 20, 5_000
WAYS: dict[str, ExecutionConfig] = {
    "one after another": LocalExecution(),
    "two processes": LocalExecution(workers=2),
    "Ray, two workers": RayExecution(),
}


def main() -> None:
    """Print the table and the JSON line."""
    logging.disable(logging.WARNING)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # else other work on the machine goes before Ray's
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    starts: dict[str, list[float]] = {way: [] for way in WAYS}
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder))
        for _ in range(ROUNDS):
            for way, execution in WAYS.items():
                seconds, start, grid = train(run, execution, tempfile.mkdtemp(dir=folder))
                taken[way].append(seconds)
                starts[way].append(start)
                print(f"{way}: {seconds:.1f} s after {start:.1f}", file=sys.stderr)
                digests.add(tuple(student.digest for student in grid.students))
    middle = {way: median(seconds) for way, seconds in taken.items()}
    table = [
        {
            "execution": way,
            "s": f"{middle[way]:.1f}",
            "each": ", ".join(f"{one:.1f}" for one in seconds),
            "start and end s": f"{median(starts[way]):.1f}",
        }
        for way, seconds in taken.items()
    ]
    print(markdown_table(table), end="\n\n")
    print(f"{say_machine()} Load at the end: {os.getloadavg()[1]:.1f}.", end="\n\n")
    alone, processes, ray = middle.values()
    figures = {
        "two_processes_speedup": round(alone / processes, 3),
        "ray_over_two_processes": round(ray / processes, 3),
        "ray_start_s": round(median(starts["Ray, two workers"]), 1),
        "same_digests": len(digests) == 1,
    }
    print(json.dumps(figures))


def make_run(folder: Path) -> Run:
    """Return a run whose rows a saved teacher has answered."""
    base = save_encoder(folder / "encoder")
    static = {"family": "static", "model": base, "dimensions": [64, 96, 128, 160], "epochs": 16}
    words = {"family": "bag_of_words", "max_features": [3000, 3500, 4000, 4500]}
    written = {
        "name": "execution",
        "work_dir": f"{folder}/prepared",
        "data": write_rows(folder),
        "teacher": {"kind": "saved", "path": f"{folder}/answers.parquet"},
        "students": [static, words | {"hidden_units": 64}],
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "registry": {"model": "execution"},
    }
    config = parse_config(written, "execution")
    corpus = check_config(config)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher)
    return start_run(config, keep_corpus(config, corpus), teacher, labels)


def train(run: Run, execution: ExecutionConfig, work: str) -> tuple[float, float, Grid]:
    """Train the grid into an empty store; return its seconds, those around it, and the grid."""
    run = replace(run, config=run.config.model_copy(update={"work_dir": work}))
    trials, begin = first_trials(run.config), time.perf_counter()
    with execution.start(len(trials)) as workers:
        start = time.perf_counter()
        grid = Grid().add(
            trials,
            lambda trial: workers.call(trial.name, train_there, run, trial),
            workers.at_once,
        )
        seconds = time.perf_counter() - start
    return seconds, time.perf_counter() - begin - seconds, grid


def write_rows(folder: Path) -> dict[str, Any]:
    """Write rows whose class shows in their words, and a teacher's answers that mostly know it."""
    generator, paths = np.random.default_rng(13), {}
    answers = []
    for split, count in {"train": ROWS, "validation": 500, "held_out": 500}.items():
        labels = generator.integers(CLASSES, size=count)
        texts = [_write(generator, number, label) for number, label in enumerate(labels)]
        rows = pd.DataFrame({"text": [f"{split} {text}" for text in texts]})
        rows["label"] = [f"class {label}" for label in labels]
        paths[split] = f"{folder}/{split}.parquet"
        rows.to_parquet(paths[split], index=False)
        said = np.full((count, CLASSES), 0.1 / CLASSES)
        said[np.arange(count), labels] += 0.9
        names = [f"class {number}" for number in range(CLASSES)]
        answers.append(pd.DataFrame(said, columns=names).assign(text=rows["text"]))
    pd.concat(answers).to_parquet(folder / "answers.parquet", index=False)
    return paths


def _write(generator: np.random.Generator, number: int, label: int) -> str:
    """Return a text of 40 words, a quarter of them of its class."""
    own = label * WORDS // CLASSES + generator.integers(WORDS // CLASSES, size=10)
    others = generator.integers(WORDS, size=30)
    return " ".join([f"word{word}" for word in (*own, *others)] + [f"row{number}"])


def save_encoder(folder: Path) -> str:
    """Save a small random encoder, of whose tokens the static students are made."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(WORDS))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(13)
    shape = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = BertConfig(vocab_size=len(words), intermediate_size=384, **shape)
    BertModel(settings).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
