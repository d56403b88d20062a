"""Do many rows fit? A million rows of 20 classes: read, checked, answered, and a student trained.

The rows are drawn from a seed, 30 words each, a third of them of their class, and one in a hundred
a near repeat of another; the teacher's answers are saved ones. Rows are checked and kept, the
answers put into the store, and a bag of words learns from all of them, in one process, as a run
does it. `python scale.py [ROWS ...]`. Prints a table for people and, as its last line, one JSON
object:

- ``peak_gb``: the most memory that the process held with most rows.
- ``minutes``: all of it with most rows; what drawing them took is not in it.
- ``base_gb``, ``prepare_bytes_for_each_row``: the memory of `prepare` as a line through both sizes.
- ``prepare_us_for_each_row``, ``train_us_for_each_row``: time with most rows.
- ``disk_bytes_for_each_row``: what one more row adds to the store.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from reuters import say_machine

from distill_tasks.reporting.tables import markdown_table

SIZES = (100_000, 1_000_000)
CLASSES, WORDS, SHARED_WORDS, OWN_WORDS, REPEATS = 20, 30, 20_000, 500, 0.01
GOLD, HELD_OUT, CHUNK, SEED = 10_000, 5_000, 50_000, 22
STAGES = ("prepare", "label", "train")


def main() -> None:
    """Print the table and the JSON line; with the word `here`, run one size in this process."""
    if sys.argv[1:2] == ["here"]:
        print(json.dumps(spend(Path(sys.argv[2]))))
        return
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    spent = [spend_on(rows) for rows in sizes]
    table = [
        {
            "rows": f"{rows:,}",
            **{f"{stage}, minutes": f"{one['minutes'][stage]:.1f}" for stage in STAGES},
            **{f"{stage}, peak GB": f"{one['peak_gb'][stage]:.2f}" for stage in STAGES},
            "store MB": f"{one['disk_mb']:.0f}",
        }
        for rows, one in zip(sizes, spent, strict=True)
    ]
    print(markdown_table(table), end="\n\n")
    print(say_machine(), end="\n\n")
    print(json.dumps(summarise(sizes, spent)))


def summarise(sizes: list[int], spent: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of the line for programs."""
    (few, many), (first, last) = (sizes[0], sizes[-1]), (spent[0], spent[-1])
    more = max(many - few, 1)
    grown = (last["peak_gb"]["prepare"] - first["peak_gb"]["prepare"]) / more
    return {
        "peak_gb": round(last["peak_gb"]["train"], 2),
        "minutes": round(sum(last["minutes"].values()), 2),
        "base_gb": round(first["peak_gb"]["prepare"] - few * grown, 2),
        "prepare_bytes_for_each_row": round(grown * 2**30),
        "prepare_us_for_each_row": round(6e7 * last["minutes"]["prepare"] / many),
        "train_us_for_each_row": round(6e7 * last["minutes"]["train"] / many),
        "disk_bytes_for_each_row": round(1e6 * (last["disk_mb"] - first["disk_mb"]) / more),
    }


def spend_on(rows: int) -> dict[str, Any]:
    """Return what so many rows take, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        draw_rows(Path(folder), rows)
        command = [sys.executable, __file__, "here", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
        spent: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return spent


def spend(folder: Path) -> dict[str, Any]:
    """Prepare, label and train, and return the minutes, the peaks and the size of the store."""
    from distill_tasks.config import parse_config
    from distill_tasks.results.grid import Trial
    from distill_tasks.results.run import start_run
    from distill_tasks.results.teacher import make_teacher
    from distill_tasks.results.trained import train_one
    from distill_tasks.stages.label import label_rows
    from distill_tasks.stages.prepare import check_config, keep_corpus

    config = parse_config(configure(folder), "scale")
    minutes, peak_gb, start = {}, {}, time.monotonic()

    def note(stage: str) -> None:
        nonlocal start
        minutes[stage], start = (time.monotonic() - start) / 60, time.monotonic()
        peak_gb[stage] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(stage, minutes[stage], peak_gb[stage], file=sys.stderr, flush=True)

    corpus = keep_corpus(config, check_config(config))
    note("prepare")
    rows = corpus.open()
    teacher = make_teacher(config, rows)
    labels = label_rows(config, rows, teacher)
    note("label")
    run = start_run(config, corpus, teacher, labels)
    train_one(run.open(), Trial(config.students[0], config.seed))
    note("train")
    kept = sum(path.stat().st_size for path in (folder / "work").rglob("*") if path.is_file())
    return {"minutes": minutes, "peak_gb": peak_gb, "disk_mb": kept / 1e6}


def draw_rows(folder: Path, rows: int) -> None:
    """Write splits and a teacher's answers, a chunk at a time."""
    generator = np.random.default_rng(SEED)
    shared = np.array([f"w{number}" for number in range(SHARED_WORDS)])
    frequency = 1 / np.arange(1, SHARED_WORDS + 1)
    frequency /= frequency.sum()
    counts = {"train": GOLD, "held_out": HELD_OUT, "transfer": rows - GOLD}
    answers: pq.ParquetWriter | None = None
    for name, count in counts.items():
        file: pq.ParquetWriter | None = None
        for begin in range(0, count, CHUNK):
            size = min(CHUNK, count - begin)
            gold = generator.integers(CLASSES, size=size)
            words = generator.choice(shared, (size, WORDS), p=frequency)
            own = generator.integers(OWN_WORDS, size=(size, WORDS // 3))
            texts = [
                f"{name}{begin + row} "
                + " ".join([*words[row], *(f"c{gold[row]}x{word}" for word in own[row])])
                for row in range(size)
            ]
            for row in generator.choice(size - 1, int(REPEATS * size), replace=False):
                texts[row + 1], gold[row + 1] = f"{texts[row]} again", gold[row]
            table = pa.table({"text": texts, "label": [f"class{number}" for number in gold]})
            file = file or pq.ParquetWriter(folder / f"{name}.parquet", table.schema)
            file.write_table(table)
            said = np.where(generator.random(size) < 0.1, (gold + 1) % CLASSES, gold)
            share = np.full((size, CLASSES), 0.2 / CLASSES, np.float32)
            share[np.arange(size), said] += 0.8
            columns = {f"class{number}": share[:, number] for number in range(CLASSES)}
            answered = pa.table({"text": texts} | columns)
            answers = answers or pq.ParquetWriter(folder / "answers.parquet", answered.schema)
            answers.write_table(answered)
        if file:
            file.close()
    if answers:
        answers.close()


def configure(folder: Path) -> dict[str, Any]:
    """Return the configuration of the run."""
    splits = ("train", "transfer", "held_out")
    return {
        "name": "scale",
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / f"{name}.parquet") for name in splits},
        "teacher": {"kind": "saved", "path": str(folder / "answers.parquet")},
        "students": [{"family": "bag_of_words"}],
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "registry": {"model": "scale", "first": "any"},
    }


if __name__ == "__main__":
    main()
