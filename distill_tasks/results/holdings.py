"""What a store holds for the next run, told without reading rows or asking a teacher."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from distill_tasks.core.integrity import MANIFEST
from distill_tasks.core.store import CHECKPOINT, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill_tasks.config import DistillConfig


@dataclass(frozen=True)
class Holdings:
    """What the next run finds."""

    trained: tuple[str, ...]
    """Students of the grid that were trained, under these names. A run takes them as they are,
    unless rows, answers or settings that they learnt from have changed."""
    missing: tuple[str, ...]
    """The other students of the grid."""
    begun: int
    """Trainings that were interrupted and go on from a checkpoint."""
    answers: int
    """Rows that teachers have answered; they are not asked about them again."""


def find_holdings(config: DistillConfig) -> Holdings:
    """Return what the store of a configuration holds."""
    store = Store(config.work_dir)
    known = set(_list_trained(store.root))
    names = [student.name for student in config.students]
    drafts = store.root.glob(f"*/*.partial/**/{CHECKPOINT}")
    return Holdings(
        trained=tuple(name for name in names if name in known),
        missing=tuple(name for name in names if name not in known),
        begun=len({path.relative_to(store.root).parts[:2] for path in drafts}),
        answers=sum(_count_rows(shard) for shard in Path(store.labels).glob("*/*.parquet")),
    )


def _list_trained(root: Path) -> Iterator[str]:
    for path in root.glob(f"students/*/{MANIFEST}"):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            yield found.get("about", found)["name"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a run says what is damaged, and makes it again


def _count_rows(shard: Path) -> int:
    try:
        return int(pq.read_metadata(shard).num_rows)
    except (OSError, pa.ArrowException):
        return 0
