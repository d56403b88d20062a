"""What do Prefect, MLflow and the report cost for each candidate? 50 and 200 bags of words.

The teacher's answers are saved ones, the rows 500 of Reuters R8. The whole pipeline runs as a user
runs it, flow, tracking database, report, registry and gate included, and beside the one of 50 the
bare computation: the same training, scoring, timing, statistics and choice by plain functions.
Then two candidates are run again, with all of it done already, as the commands a user gives:
`potstill check`, which loads the libraries and checks, and `potstill run`, which adds the start of
Prefect's server and the flow. Each three times; medians.
Prints a table for people and, as its last line, one JSON object:

- ``seconds_per_candidate``: whole pipeline less bare computation, of 50 candidates, for each.
- ``growth_200_over_50``: seconds of the whole pipeline for each of 200 candidates over those for
  each of 50.
- ``idle_run_s``: seconds of the whole command `potstill run` that finds everything done.
- ``idle_flow_s``: those less the seconds of `potstill check`: the flow and its server.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import yaml
from reuters import configure, say_machine, take

from distill_tasks.config import DistillConfig
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.choice import find_finalists, select_candidate
from distill_tasks.results.grid import Grid, first_trials
from distill_tasks.results.run import OpenRun
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.measure import measure_all
from distill_tasks.stages.prepare import check_config, keep_corpus
from distill_tasks.stages.prove import prove_all
from distill_tasks.stages.select import make_field, make_rule

ROWS, FEW, MANY, ROUNDS = 500, 50, 200, 3
WORDS = ("check", "run")
"""The commands that are timed when all is done."""


def main() -> None:
    """Print the table and the JSON line."""
    logging.disable(logging.WARNING)
    os.environ |= {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_SERVER_ANALYTICS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_HOME"] = f"{folder}/prefect"
        warm = make_config(Path(folder) / "warm", 2)
        run_whole(warm)  # libraries are loaded, databases made
        few_s = seconds(run_whole, make_config(Path(folder), FEW))
        bare_s = seconds(run_bare, make_config(Path(folder), FEW))
        many_s = seconds(run_whole, make_config(Path(folder), MANY))
        check_s, idle_s = (
            median(seconds(partial(run_command, word), warm) for _ in range(ROUNDS))
            for word in WORDS
        )
    table = [
        {
            "run": f"{work}, {candidates} candidates",
            "s": f"{taken:.1f}",
            "for each": f"{taken / candidates:.2f}",
        }
        for work, candidates, taken in (
            ("bare computation", FEW, bare_s),
            ("whole pipeline", FEW, few_s),
            ("whole pipeline", MANY, many_s),
        )
    ]
    idle = [
        {"run": f"potstill {word}, all is done", "s": f"{taken:.1f}", "for each": "–"}
        for word, taken in zip(WORDS, (check_s, idle_s), strict=True)
    ]
    print(markdown_table(table + idle), end="\n\n")
    print(say_machine(), end="\n\n")
    figures = {
        "seconds_per_candidate": (few_s - bare_s) / FEW,
        "growth_200_over_50": (many_s / MANY) / (few_s / FEW),
        "idle_run_s": idle_s,
        "idle_flow_s": idle_s - check_s,
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def make_config(folder: Path, candidates: int) -> DistillConfig:
    """Return a configuration of so many bags of words, in a work folder of its own."""
    folder.mkdir(exist_ok=True)
    sizes = [500 + 10 * number for number in range(candidates)]
    work = tempfile.mkdtemp(dir=folder)
    config = configure(
        "r8",
        folder,
        ROWS,
        students=[{"family": "bag_of_words", "max_features": sizes}],
        teacher={"kind": "saved", "path": f"{folder}/answers.parquet"},
        work_dir=work,
        name=Path(work).name.replace("_", "-").strip("-") or "overhead",
        tracking={"uri": f"sqlite:///{folder}/mlflow.db", "experiment": work},
        registry={"model": Path(work).name},
        measure={"calls": 20},
    )
    held_out = pd.read_parquet(config.data.held_out)
    take(held_out, ROWS).to_parquet(config.data.held_out, index=False)
    save_answers(config, folder / "answers.parquet")
    return config


def save_answers(config: DistillConfig, path: Path) -> None:
    """Write a teacher's answers that are right nine times in ten."""
    files = (config.data.train, config.data.held_out)
    rows = pd.concat([pd.read_parquet(file) for file in files]).drop_duplicates("text")
    classes = sorted(rows["label"].unique())
    said = np.full((len(rows), len(classes)), 0.1 / len(classes))
    right = rows["label"].map(classes.index).to_numpy()
    wrong = np.arange(len(rows)) % 10 == 0
    said[np.arange(len(rows)), (right + wrong) % len(classes)] += 0.9
    table = pd.DataFrame(said, columns=classes).assign(text=rows["text"].to_numpy())
    table[["text", *classes]].to_parquet(path, index=False)


def seconds(work: Callable[[DistillConfig], None], config: DistillConfig) -> float:
    """Return the seconds of some work."""
    start = time.perf_counter()
    work(config)
    return time.perf_counter() - start


def run_command(word: str, config: DistillConfig) -> None:
    """Run a command of Potstill in a process of its own."""
    path = Path(config.work_dir) / "config.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_unset=True))))
    command = [sys.executable, "-m", "flows.cli", word, str(path)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own command


def run_whole(config: DistillConfig) -> None:
    """Run the flow as a user does."""
    from flows.distill import distill

    distill(config)


def run_bare(config: DistillConfig) -> None:
    """Do what the flow computes, and nothing else."""
    corpus = check_config(config)
    keep_corpus(config, corpus)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher).open()
    run = OpenRun(config, corpus, teacher, labels, config.loss.usual_objective)
    grid = Grid().add(first_trials(config), lambda trial: train_one(run, trial))
    scores = score_all(run, grid.students, "validation")
    latencies = measure_all(run, grid.students)
    field = make_field(run, grid.students, scores, latencies)
    finalists = find_finalists(field, make_rule(config), config.evaluate.finalists)
    further = grid.further_trials(config, finalists)
    grid = grid.add(further, lambda trial: train_one(run, trial))
    scores = score_all(run, grid.students, "validation")
    field = make_field(run, grid.students, scores, latencies)
    selection = select_candidate(field, finalists, make_rule(config))
    tested = grid.of(finalists)
    score_all(run, tested, "held_out")
    prove_all(run, tested, selection.leading)


if __name__ == "__main__":
    main()
