"""One real run of the flow, for all tests that look at what a run finds and leaves behind."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_states import last_flow_run, task_states
from samples import make_rows

from distill_tasks.config import DistillConfig, parse_config

if TYPE_CHECKING:
    from flows.distill import Outcome


@dataclass(frozen=True)
class Night:
    """What a run came to, and the state in which each of its tasks ended, in their order."""

    config: DistillConfig
    outcome: Outcome
    states: list[tuple[str, str]]


def run_night(folder: Path, base: Path, **changes: Any) -> Night:
    """Run the flow in a folder, in front of whatever Prefect server there is."""
    from flows.distill import distill

    config = parse_config(write_night(folder, base) | changes, "night")
    outcome = distill(config)
    return Night(config, outcome, task_states(last_flow_run()))


def keep_night(folder: Path, base: Path) -> None:
    """Run the flow in a folder and leave there what it came to."""
    (folder / "night.pickle").write_bytes(pickle.dumps(run_night(folder, base)))


def read_night(folder: Path) -> Night:
    """Return what a run came to that another process may have made."""
    night: Night = pickle.loads((folder / "night.pickle").read_bytes())
    return night


def write_night(folder: Path, base: Path) -> dict[str, Any]:
    """Write rows; return plain settings whose candidates differ in quality, speed and size.

    The bag of words is perfect and the fastest. What may be chosen is small: the transformer in
    int8, which is as good, and a student that is hardly better than chance.
    """
    rows = make_rows(300, seed=1)
    splits = {"train": rows[:90], "transfer": rows[90:200][["text"]], "held_out": rows[200:]}
    for name, split in splits.items():
        split.to_parquet(folder / f"{name}.parquet", index=False)
    teacher = {"kind": "finetune", "base": str(base), "max_length": 16, "epochs": 12}
    return {
        "name": "animals",
        "seed": 10,
        "work_dir": str(folder / "work"),
        "data": {"validation_share": 0.2}
        | {name: str(folder / f"{name}.parquet") for name in splits},
        "teacher": {**teacher, "learning_rate": 0.005},
        "students": [
            {"family": "layers", "layers": 2},
            {"family": "static", "dimensions": 1, "epochs": 1},  # the worst
            {"family": "bag_of_words", "max_features": 20_000, "hashed": True},
        ],
        "evaluate": {"seeds": 1, "controls": False},
        "export": {"variants": ["onnx", "onnx_int8"]},
        "select": {"choose": "most_accurate", "max_disk_mb": 0.08},
        "measure": {"calls": 20, "batch_rows": [4]},
        "cost": {"machine_hour": 1.5},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "night"},
        "registry": {"model": "animals", "first": "any"},
    }
