"""How fast is an endpoint asked, and what do kills cost? 2,000 rows at a latency of 200 ms.

The endpoint is the scripted one of `examples/`, in a process of its own; 64 requests are on their
way at once, in one order of the classes. Then a client with a limit of what it may spend is killed
20 times at random moments and started again, and the endpoint's own ledger says what it charged.
`python labelling_client.py [ROWS] [KILLS]`. Prints a table for people and, as its last line, one
JSON object:

- ``times_ideal``: seconds to label all rows, over those that the latency alone takes.
- ``asked_twice``: rows that were answered more than once, without a kill.
- ``lost_answers``: answers that were charged and lost in the worst kill.
- ``overspent``: by how much what the endpoint charged is beyond the limit; 0 is asked.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples"))

from endpoint import run_endpoint
from endpoint_script import read_ledger

from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.settings import RowFormat
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.teachers.api import ApiTeacher
from distill_tasks.teachers.base import LabellingContext
from distill_tasks.teachers.keeping import keep_answers
from distill_tasks.teachers.terms import Licence, Prices

ROWS, KILLS = 2_000, 20
LATENCY_MS, CONCURRENCY = 200, 64
CLASSES = tuple(f"class {number}" for number in range(15))
PRICES = {"input": 1.0, "output": 2.0}
"""For a million tokens."""

ENOUGH, MOMENTS_S = 5, (0.3, 0.9)
"""The limit, as a multiple of what all rows cost, since what was reserved at a kill stays reserved;
and when a client is killed, in seconds after it begins to ask."""


def judge(text: str, classes: list[str]) -> list[float]:
    """Return the oracle's probabilities: the text's number says its class."""
    right = f"class {int(text.split()[1]) % len(CLASSES)}"
    return [0.8 if name == right else 0.2 / (len(classes) - 1) for name in classes]


def main() -> None:
    """Print the table and the JSON line; or label once, if the arguments say where."""
    if len(sys.argv) > 3:
        url, folder, rows, spend = sys.argv[1:]
        label(url, Path(folder), int(rows), float(spend) or None)
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else KILLS
    figures = measure_speed(rows) | measure_kills(rows, kills)
    print(markdown_table([{name: f"{value:.3g}" for name, value in figures.items()}]), end="\n\n")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def measure_speed(rows: int) -> dict[str, float]:
    """Return how long all rows take, and how many were asked twice."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder, "ledger.jsonl")
        with open_endpoint(ledger) as url:
            done = start(url, Path(folder), rows, 0.0)
            seconds = json.loads(done.communicate()[0].splitlines()[-1])["seconds"]
        asked = count_rows(ledger)
    ideal = rows * LATENCY_MS / 1000 / CONCURRENCY
    return {"times_ideal": seconds / ideal, "asked_twice": sum(n > 1 for n in asked.values())}


def measure_kills(rows: int, kills: int) -> dict[str, float]:
    """Return what was lost and overspent when the client is killed again and again."""
    draw, worst = random.Random(0), 0  # noqa: S311  # no secret
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder, "ledger.jsonl")
        with open_endpoint(ledger) as url:
            whole = find_price(url, Path(folder, "whole"), rows, ledger)
            limit = ENOUGH * whole
            before = len(read_ledger(ledger).entries)
            for _ in range(kills):
                client = start(url, Path(folder, "killed"), rows, limit)
                wait_for_first(client)
                time.sleep(draw.uniform(*MOMENTS_S))
                client.kill()
                client.wait()
                lost = len(read_ledger(ledger).entries) - before - count_kept(Path(folder))
                worst, before = max(worst, lost), before + max(lost, 0)
            start(url, Path(folder, "killed"), rows, limit).wait()
        charged = sum(entry.price for entry in read_ledger(ledger).entries) - whole
    return {"lost_answers": worst, "overspent": max(0.0, charged - limit)}


def find_price(url: str, folder: Path, rows: int, ledger: Path) -> float:
    """Return what labelling all rows costs, by labelling them."""
    start(url, folder, rows, 0.0).wait()
    return sum(entry.price for entry in read_ledger(ledger).entries)


def open_endpoint(ledger: Path) -> Any:
    """Return the endpoint in a process of its own, as a context that gives its address."""
    prices = ["--input-price", str(PRICES["input"]), "--output-price", str(PRICES["output"])]
    latency = ["--latency-ms", str(LATENCY_MS)]
    return run_endpoint(f"{__file__}:judge", *latency, "--ledger", str(ledger), *prices)


def start(url: str, folder: Path, rows: int, spend: float) -> subprocess.Popen[str]:
    """Start a process that labels all rows."""
    command = [sys.executable, __file__, url, str(folder), str(rows), str(spend)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this file


def wait_for_first(client: subprocess.Popen[str]) -> None:
    """Wait until a client is about to ask."""
    assert client.stdout is not None  # it is a pipe
    client.stdout.readline()


def label(url: str, folder: Path, rows: int, spend: float | None) -> None:
    """Label all rows; print a line before the first is asked, and the seconds that all took."""
    texts = tuple(f"text {number} about something of some length" for number in range(rows))
    gold = np.arange(rows) % len(CLASSES)
    corpus = Corpus({"train": Split(texts, gold)}, CLASSES)
    teacher = ApiTeacher(
        base_url=url,
        model="oracle-large",
        licence=Licence(name="none", url="https://example.org", may_train="yes"),
        concurrency=CONCURRENCY,
        order="one",
        method="top_logprobs",
        prices=Prices(**PRICES),
        max_spend=spend,
    )
    context = LabellingContext(corpus, RowFormat(), Store(folder))
    teacher.identify(context)
    store = SoftLabelStore(context.store.labels, "all", CLASSES)
    print("asking", flush=True)
    began = time.monotonic()
    keep_answers(teacher.answers(texts, context), texts, store)
    print(json.dumps({"seconds": time.monotonic() - began}))


def count_rows(ledger: Path) -> Counter[str]:
    """Return how often each text was answered, without the probe's first rows."""
    entries = read_ledger(ledger).entries
    probed = {entry.text for entry in entries[:3]}
    return Counter(e.text for e in entries if e.answered and e.text not in probed)


def count_kept(folder: Path) -> int:
    """Return how many replies the killed client's ledger holds."""
    import sqlite3

    (file,) = (folder / "killed" / "replies").glob("*.sqlite")
    with sqlite3.connect(file) as ledger:
        (kept,) = ledger.execute("SELECT count(reply) FROM calls").fetchone()
    return int(kept)


if __name__ == "__main__":
    main()
