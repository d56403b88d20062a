"""Is the promise kept that a configuration makes? The tickets case, as a new user would try it.

Eight groups of 20 Newsgroups stand for the tickets of a help desk: 500 rows with gold, 3,000
without, 1,500 held out, a fine-tuned MiniLM as teacher, and a champion that must keep 98 % of its
accuracy. The students are small ones: of these the rule as it was, that took the estimate on 100
rows of validation for the truth, threw out the one that is as good as its teacher. The whole chain
runs as `potstill run`, in .potstill/benchmarks/tickets, with a new model registry every time;
students that were trained before are not trained again. The champion is then loaded from the
registry and asked the held-out rows, beside the teacher's answers that were kept.
Prints what the run said and a table and, as its last line, one JSON object. Needs `make demo`
first, for the base model:

- ``kept_promise``: whether the champion keeps that share on held-out, or nothing was promoted.
- ``promoted``: whether there is a champion.
- ``retention``: the champion's held-out accuracy as a share of the teacher's; null without one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from newsgroups import DESK, read_groups
from reuters import ROOT, SEED, say_machine
from sklearn.model_selection import train_test_split

from distill_tasks.config import DistillConfig, load_config
from distill_tasks.data.rows import read_corpus
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.teacher import make_teacher
from distill_tasks.scoring.intervals import Figure, estimate
from distill_tasks.scoring.statistics import mean, ratio
from distill_tasks.stages.label import label_rows

FOLDER = ROOT / ".potstill/benchmarks/tickets"
GOLD_ROWS, TRANSFER_ROWS, HELD_OUT_ROWS = 500, 3000, 1500
PROMISE = 0.98
FIRST_LINES = 12
"""Of what the run prints, what is shown here."""

Answer = Callable[[Sequence[str]], list[str]]
"""Gives the labels of texts."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    exit_code: int
    said: list[str]
    """The lines on standard output, then the error if there is one."""


def main() -> None:
    """Print what the run said, the table and the JSON line."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = write_case(FOLDER)
    ended = distil(path)
    config = load_config(path)
    kept = judge_champion(config)
    print("\n".join(f"    {line}" for line in [*ended.said[:FIRST_LINES], "…"]), end="\n\n")
    print(f"Exit code {ended.exit_code}.", end="\n\n")
    print(markdown_table(tabulate(kept)) if kept else "There is no champion.", end="\n\n")
    print(say_machine(), end="\n\n")
    retention = kept["held_out"].value if kept else None
    figures = {
        "kept_promise": retention is None or retention >= PROMISE,
        "promoted": retention is not None,
        "retention": None if retention is None else round(retention, 4),
    }
    print(json.dumps(figures))


def write_case(folder: Path) -> Path:
    """Write the rows and the configuration, and return the path of that."""
    gold, transfer, held_out = draw_rows()
    splits = {"train": gold, "transfer": transfer[["text"]], "held_out": held_out}
    for name, frame in splits.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    base = str(ROOT / "examples/reuters/data/minilm")
    written = {
        "name": "tickets",
        "seed": SEED,
        "work_dir": str(folder / "store"),
        "data": {name: str(folder / f"{name}.parquet") for name in splits},
        "teacher": {"kind": "finetune", "base": base, "max_length": 128},
        "students": [
            {"family": "static", "dimensions": [64, 256]},
            {"family": "bag_of_words", "max_features": [20_000, 50_000]},
        ],
        "evaluate": {"seeds": 2},
        "select": {"choose": "knee", "min_retention": PROMISE},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow/mlflow.db"},
        "registry": {"model": "tickets"},
    }
    path = folder / "distill.yaml"
    path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    return path


def draw_rows() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return rows with gold, rows to be labelled, and held-out rows, every group in its share."""
    official, test = read_groups(DESK, "train"), read_groups(DESK, "test")
    gold, rest = draw(official, GOLD_ROWS)
    return gold, draw(rest, TRANSFER_ROWS)[0], draw(test, HELD_OUT_ROWS)[0]


def draw(frame: pd.DataFrame, rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return so many rows and the others, stratified by label."""
    drawn, rest = train_test_split(
        frame, train_size=rows, stratify=frame["label"], random_state=SEED
    )
    return drawn, rest


def distil(path: Path) -> Ended:
    """Run the whole chain with a new registry; its progress goes to a file beside the rows."""
    shutil.rmtree(path.parent / "mlflow", ignore_errors=True)
    (path.parent / "mlflow").mkdir()
    log = path.parent / "log.txt"
    print(f"running; its progress is in {log}", file=sys.stderr)
    command = [sys.executable, "-m", "flows.cli", "run", str(path)]
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
    _, error, reason = log.read_text(encoding="utf-8").rpartition("error: ")
    said = f"{error}{reason if error else ''}\n{done.stdout}".splitlines()
    return Ended(done.returncode, [line.rstrip() for line in said if line.strip()])


def judge_champion(config: DistillConfig) -> dict[str, Figure] | None:
    """Return what share of the teacher's accuracy the registered champion keeps, by split."""
    answer = open_champion(config)
    if answer is None:
        return None
    corpus = read_corpus(config.data, config.seed)
    labels = label_rows(config, corpus, make_teacher(config, corpus)).open()
    figures = {}
    for name in ("validation", "held_out"):
        split = corpus.splits[name]
        gold = np.array(corpus.classes)[split.gold]
        taught = labels.read(split.texts).logits.argmax(axis=1) == split.gold
        hits = np.array(answer(split.texts)) == gold
        figures |= estimate({name: ratio(mean(hits), mean(taught))}, len(split), SEED)
    return figures


def open_champion(config: DistillConfig) -> Answer | None:
    """Return what answers texts with the champion's labels; None where there is no champion."""
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(config.tracking.uri)
    try:
        champion = mlflow.pyfunc.load_model(f"models:/{config.registry.model}@champion")
    except MlflowException:
        return None
    return lambda texts: champion.predict(list(texts))["label"].tolist()


def tabulate(kept: dict[str, Figure]) -> list[dict[str, str]]:
    """Return the champion's retention on both splits as rows of text."""
    return [
        {
            "split": name,
            "rows": f"{figure.rows:,}",
            "retention": f"{100 * figure.value:.2f} %",
            "interval": f"{100 * figure.low:.1f}–{100 * figure.high:.1f}",
            "promised": f"{100 * PROMISE:g} %",
        }
        for name, figure in kept.items()
    ]


if __name__ == "__main__":
    main()
