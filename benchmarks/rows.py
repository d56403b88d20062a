"""What does a run take in time, memory and disk? 1,000, 10,000 and 100,000 rows.

The rows are tickets drawn from a seed, the teacher's answers saved ones, as of an LLM; the students
two bags of words with their controls. The whole chain runs as `potstill run` in an empty folder:
rows, labels, training, scoring, timing, verdicts, report and registry. What a fine-tuned teacher
and transformers take comes on top, which `potstill plan` estimates. Prints a table for people and,
as its last line, one JSON object:

- ``minutes_1000``, ``minutes_10000``, ``minutes_100000``: the whole run on so many rows.
- ``cpu_minutes_…``: the same of all cores together, which a busy neighbour hardly changes.
- ``peak_gb``: the most memory that a process of the largest run held.
- ``disk_mb``: what the largest run leaves behind, store and MLflow together.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from reuters import ROOT, say_machine

sys.path.append(str(ROOT / "examples" / "notebook"))

from helpdesk import ask_llm, draw_tickets

from distill_tasks.reporting.tables import markdown_table

SIZES = (1_000, 10_000, 100_000)
GOLD_SHARE, MOST_GOLD, HELD_OUT_ROWS = 0.3, 3_000, 1_000


@dataclass(frozen=True)
class Spent:
    """What one run took."""

    rows: int
    minutes: float
    cpu_minutes: float
    """Of all cores together, which a busy neighbour hardly changes."""
    peak_gb: float
    disk_mb: float


def main() -> None:
    """Print the table and the JSON line."""
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    spent = [time_run(rows) for rows in sizes]
    table = [
        {
            "rows": f"{one.rows:,}",
            "minutes": f"{one.minutes:.1f}",
            "CPU minutes": f"{one.cpu_minutes:.1f}",
            "memory GB": f"{one.peak_gb:.1f}",
            "disk MB": f"{one.disk_mb:.0f}",
        }
        for one in spent
    ]
    print(markdown_table(table), end="\n\n")
    print(say_machine(), end="\n\n")
    figures = {f"minutes_{one.rows}": round(one.minutes, 2) for one in spent}
    figures |= {f"cpu_minutes_{one.rows}": round(one.cpu_minutes, 2) for one in spent}
    largest = spent[-1]
    print(json.dumps(figures | {"peak_gb": round(largest.peak_gb, 2), "disk_mb": largest.disk_mb}))


def time_run(rows: int) -> Spent:
    """Run the whole chain on so many rows of train and transfer together."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_case(folder, rows)
        start, before = time.monotonic(), count_cpu_minutes()
        with (folder / "log.txt").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", "flows.cli", "run", "distill.yaml"],
                cwd=folder,
                stdout=log,
                stderr=log,
                check=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        minutes = (time.monotonic() - start) / 60
        cpu_minutes = count_cpu_minutes() - before
        peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        kept = [*folder.glob(".potstill/**/*"), *folder.glob("ml*"), *folder.glob("ml*/**/*")]
        disk_mb = sum(path.stat().st_size for path in kept if path.is_file()) / 1e6
        return Spent(rows, minutes, cpu_minutes, peak_gb, round(disk_mb, 1))


def count_cpu_minutes() -> float:
    """Return what all child processes that have ended took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def write_case(folder: Path, rows: int) -> None:
    """Write tables, answers and configuration."""
    gold = min(int(GOLD_SHARE * rows), MOST_GOLD)
    tables = {
        "train": draw_tickets(gold, seed=1),
        "transfer": draw_tickets(rows - gold, seed=2)[["text"]],
        "held_out": draw_tickets(HELD_OUT_ROWS, seed=3),
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    texts = pd.concat(tables.values())["text"].drop_duplicates()
    ask_llm(texts).to_parquet(folder / "answers.parquet", index=False)
    settings = {
        "name": "rows",
        "data": {name: f"{name}.parquet" for name in tables},
        "teacher": {"kind": "saved", "path": "answers.parquet"},
        "students": [{"family": "bag_of_words", "max_features": [20_000, 50_000]}],
        "evaluate": {"weak_teacher": "go_on"},
        "registry": {"model": "rows", "first": "any"},
    }
    (folder / "distill.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


if __name__ == "__main__":
    main()
