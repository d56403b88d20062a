"""Is a damaged store ever believed? 500 small corruptions, each followed by a whole run.

A first run on a tiny corpus fills a store: saved answers, a bag of words. Each time a copy of it is
damaged (bytes flipped, a file cut, a file deleted, two files swapped, all chosen at random) and
a second run follows, flow, report, registry and gate included, with a fresh MLflow database, so
that what the store holds is registered and promoted anew. The champion is then loaded from the
registry and asked the held-out rows: its figures must be those of its bytes.
`python corruptions.py [COUNT]`. Prints a table for people and, as its last line, one JSON object:

- ``corruptions``: how many were tried.
- ``lying_champions``: champions that cannot be opened, or whose accuracy is not the one on record.
- ``tracebacks``: runs that ended with anything but a line for people.
- ``refused``: runs that ended with such a line and promoted nothing.
- ``unannounced``: damaged entries of which no line told. What was deleted whole (a shard, the class
  order, an entry that is its manifest alone) is made again without one: nothing is left to tell of.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_LEVEL,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from distill_tasks.config import DistillConfig, TrackingConfig, parse_config
from distill_tasks.core.errors import PotstillError
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.tracking.store import check_tracking

COUNT, SEED = 500, 16
CLASSES = ("cats", "dogs", "fish")
ROWS = {"train": 60, "validation": 60, "transfer": 90, "held_out": 90}
KINDS = ("flip", "cut", "delete", "swap")
UNREAD = {"seconds.json", ".lock", "teacher_answers.csv"}
"""Files that no later run reads; the last is for people."""


@dataclass(frozen=True)
class Result:
    """What a run made of a damaged store."""

    kind: str
    place: str
    """The kind of entry that was damaged: labels, students, served …"""
    ended: str
    """``honest``, ``lying``, ``refused`` or ``traceback``."""
    announced: bool
    """Whether a line told of it, or nothing was left to tell of."""
    seconds: float


def main() -> None:
    """Print the table and the JSON line."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    quiet = {PREFECT_LOGGING_LEVEL: "CRITICAL", PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with (
        tempfile.TemporaryDirectory() as folder,
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings(quiet),
    ):
        results = list(try_corruptions(Path(folder), count))
    print(markdown_table(tabulate(results)), end="\n\n")
    ends = Counter(result.ended for result in results)
    figures = {
        "corruptions": len(results),
        "lying_champions": ends["lying"],
        "tracebacks": ends["traceback"],
        "refused": ends["refused"],
        "unannounced": sum(not result.announced for result in results),
        "seconds_for_each": round(sum(r.seconds for r in results) / max(len(results), 1), 2),
    }
    print(json.dumps(figures))


def try_corruptions(folder: Path, count: int) -> Iterator[Result]:
    """Fill a store once, and yield what a run makes of each damaged copy of it."""
    from flows.distill import distill

    database = folder / "empty.db"
    check_tracking(TrackingConfig(uri=f"sqlite:///{database}"))
    write_rows(folder)
    first = configure(folder, folder / "first", database)
    distill(first)
    generator = np.random.default_rng(SEED)
    for number in range(count):
        night = folder / f"night-{number}"
        config = configure(folder, night, database)
        shutil.copytree(first.work_dir, config.work_dir)
        kind = KINDS[number % len(KINDS)]
        damaged = damage(Path(config.work_dir), kind, generator)
        yield run_after(config, kind, damaged)
        shutil.rmtree(night)


def damage(work: Path, kind: str, generator: np.random.Generator) -> list[Path]:
    """Damage files of a store in one way, and return their paths."""
    files = sorted(path for path in work.rglob("*") if path.is_file() and path.stat().st_size)
    files = [path for path in files if path.name not in UNREAD]
    path, other = (files[number] for number in generator.choice(len(files), 2, replace=False))
    written = bytearray(path.read_bytes())
    damaged, others = [path], other.read_bytes()
    match kind:
        case "flip":
            for place in generator.integers(len(written), size=generator.integers(1, 9)):
                written[place] ^= generator.integers(1, 256)
            replace(path, bytes(written))
        case "cut":
            replace(path, bytes(written[: generator.integers(len(written))]))
        case "delete":
            path.unlink()
        case "swap":
            replace(path, others)
            replace(other, bytes(written))
            damaged.append(other)
    return damaged


def replace(path: Path, written: bytes) -> None:
    """Overwrite a file where it lies, so that hard links to it are damaged too."""
    with path.open("r+b") as file:
        file.truncate()
        file.write(written)


def run_after(config: DistillConfig, kind: str, damaged: list[Path]) -> Result:
    """Run on a damaged store and look at who became champion."""
    from flows.distill import distill

    work, start = Path(config.work_dir), time.perf_counter()
    gone = is_gone(damaged[0])
    place = " and ".join(path.relative_to(work).parts[0] for path in damaged)
    with listening() as lines:
        try:
            outcome = distill(config)
            champion, name = outcome.promotion.champion, outcome.selection.chosen
            recorded = outcome.findings.held_out.candidates[name].quality.value
            ended = "honest" if is_honest(config, champion, recorded) else "lying"
        except PotstillError as error:
            ended = "refused"
            print(f"{kind} {damaged}: {error}", file=sys.stderr)
        except Exception:  # noqa: BLE001  # what is looked for
            ended = "traceback"
            print(f"{kind} {damaged}: {traceback.format_exc()}", file=sys.stderr)
    told = gone or any("is not whole" in line or "is damaged" in line for line in lines)
    if ended == "lying" or not told:
        print(f"{kind} {damaged}: {ended}, told {lines}", file=sys.stderr)
    return Result(kind, place, ended, told, time.perf_counter() - start)


def is_gone(path: Path) -> bool:
    """Return whether all of what a file belonged to was deleted with it."""
    alone = path.parent.parent.name == "labels" or not any(path.parent.iterdir())
    return alone and not path.exists()


def is_honest(config: DistillConfig, champion: int | None, recorded: float) -> bool:
    """Return whether the champion, loaded from the registry, is as accurate as it is said to be."""
    import mlflow

    held_out = pd.read_parquet(str(config.data.held_out))
    uri = f"models:/{config.registry.model}/{champion}"
    said = mlflow.pyfunc.load_model(uri).predict(list(held_out["text"]))
    right = [row["label"] for row in said.to_dict("records")] == held_out["label"]
    version = mlflow.MlflowClient().get_model_version(config.registry.model, str(champion))
    model = mlflow.get_logged_model(version.source.removeprefix("models:/"))
    logged = next(metric.value for metric in model.metrics if metric.key == "accuracy")
    found = float(right.mean())
    return abs(found - logged) < 1e-9 and abs(found - recorded) < 1e-4


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what the library says."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("potstill")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def write_rows(folder: Path) -> None:
    """Write the splits, and a teacher's answers that are right nine times in ten."""
    generator = np.random.default_rng(SEED)
    frames = []
    for name, rows in ROWS.items():
        labels = [CLASSES[number % len(CLASSES)] for number in range(rows)]
        texts = [
            " ".join([f"{label}{word}" for word in generator.choice(90, 2)] + [f"{name}{number}"])
            for number, label in enumerate(labels)
        ]
        frames.append(pd.DataFrame({"text": texts, "label": labels}))
        frames[-1].to_parquet(folder / f"{name}.parquet", index=False)
    rows_of_all = pd.concat(frames)
    gold = rows_of_all["label"].map(CLASSES.index).to_numpy()
    said = 0.05 + 0.85 * np.eye(3)[(gold + (generator.random(len(gold)) < 0.1)) % 3]
    answers = pd.DataFrame(said, columns=list(CLASSES)).assign(text=rows_of_all["text"].to_numpy())
    answers.to_parquet(folder / "answers.parquet", index=False)


def configure(folder: Path, night: Path, database: Path) -> DistillConfig:
    """Return the configuration of one night, with a work folder and a database of its own."""
    night.mkdir()
    shutil.copy(database, night / "mlflow.db")
    written = {
        "name": "corruptions",
        "work_dir": str(night / "work"),
        "data": {name: str(folder / f"{name}.parquet") for name in ROWS},
        "teacher": {"kind": "saved", "path": str(folder / "answers.parquet")},
        "students": [{"family": "bag_of_words", "max_features": 400}],
        "evaluate": {"controls": False},
        "measure": {"calls": 20, "batch_rows": [4]},
        "tracking": {"uri": f"sqlite:///{night}/mlflow.db"},
        "registry": {"model": "corruptions", "first": "any"},
    }
    return parse_config(written, "corruptions")


def tabulate(results: list[Result]) -> list[dict[str, str]]:
    """Return one row for each kind of damage and one for all."""
    groups = {kind: [r for r in results if r.kind == kind] for kind in KINDS} | {"all": results}
    return [
        {
            "damage": kind,
            "runs": str(len(group)),
            **{
                ended: str(sum(result.ended == ended for result in group))
                for ended in ("honest", "lying", "refused", "traceback")
            },
            "announced": str(sum(result.announced for result in group)),
        }
        for kind, group in groups.items()
    ]


if __name__ == "__main__":
    main()
