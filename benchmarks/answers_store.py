"""What does a store of a million answers take? 1,000,000 rows of 20 classes, on two file systems.

One process writes the answers, a hundred rows at a time as those of an endpoint come; a new one
opens the store and asks which of 1,001,000 texts are missing. On `memory://`, which is gone with
its process, a single one does both. What making the texts takes is not counted, the memory that
they fill is. `python answers_store.py [ROWS]`. Prints a table for people and, as its last line, one
JSON object, in which FS is `file` or `memory`:

- ``write_s_FS``: seconds to write the answers.
- ``find_s_FS``: seconds to open the store and to find the 1,000 texts without an answer.
- ``peak_gb_FS``: the most memory that the process that finds them held, texts and libraries
  included; on `memory://` the files too.
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

import numpy as np

from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.reporting.tables import markdown_table

ROWS, CLASSES, MISSING = 1_000_000, 20, 1_000
AT_ONCE = 100
"""Rows that are written at a time."""

Figures = dict[str, float]


def main() -> None:
    """Print the table and the JSON line; or measure one step, if the arguments name one."""
    if len(sys.argv) > 2:
        steps, root, rows = sys.argv[1].split("+"), sys.argv[2], int(sys.argv[3])
        print(json.dumps(measure(steps, root, rows)))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        root, store = f"file://{folder}/labels", Path(folder) / "labels"
        on_file = run("write", root, rows) | run("find", root, rows)
        files = [path.stat().st_size for path in store.rglob("*.parquet")]
    found = {"file": on_file, "memory": run("write+find", "memory://labels", rows)}
    table = [
        {
            "file system": name,
            "rows": f"{rows:,}",
            "write s": f"{figures['write_s']:.1f}",
            "find s": f"{figures['find_s']:.1f}",
            "memory GB": f"{figures['peak_gb']:.2f}",
        }
        for name, figures in found.items()
    ]
    print(markdown_table(table), end="\n\n")
    print(f"{len(files):,} files of {sum(files) / 1e6:,.0f} MB together.", end="\n\n")
    from reuters import say_machine  # with torch, which the measured processes do without

    print(say_machine(), end="\n\n")
    print(
        json.dumps(
            {f"{key}_{fs}": value for fs, one in found.items() for key, value in one.items()}
        )
    )


def run(steps: str, root: str, rows: int) -> Figures:
    """Take steps in a process of their own, and return what they took."""
    done = subprocess.run(  # noqa: S603  # this script
        [sys.executable, __file__, steps, root, str(rows)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def measure(steps: list[str], root: str, rows: int) -> Figures:
    """Write the answers, find the missing ones, or both; return seconds and peak memory."""
    figures: Figures = {}
    texts = [
        f"{row}: my order {row * 7919 % 1_000_003} has not arrived, and nobody answers my calls"
        for row in range(rows + MISSING)
    ]
    for step in steps:
        start = time.monotonic()
        write(texts[:rows], root) if step == "write" else find(texts, root)
        figures[f"{step}_s"] = round(time.monotonic() - start, 2)
    if "find" in steps:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kilobytes
        figures["peak_gb"] = round(used * 1024 / 1e9, 2)
    return figures


def open_store(root: str) -> SoftLabelStore:
    """Open the store in which everything is kept."""
    return SoftLabelStore(root, "teacher", [f"class {number}" for number in range(CLASSES)])


def write(texts: list[str], root: str) -> None:
    """Write random answers to texts."""
    store, generator = open_store(root), np.random.default_rng(0)
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        store.add(some, generator.standard_normal((len(some), CLASSES), np.float32))


def find(texts: list[str], root: str) -> None:
    """Find the texts without an answer; raise AssertionError if they are not the last ones."""
    assert open_store(root).missing(texts) == texts[-MISSING:]


if __name__ == "__main__":
    main()
