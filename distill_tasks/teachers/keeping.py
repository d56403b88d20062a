"""Keeping the answers of a teacher as they come, so that none is asked for twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.core.live import Progress
from distill_tasks.data.soft_labels import SHARD_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distill_tasks.data.soft_labels import SoftLabelStore
    from distill_tasks.teachers.base import Batches


def keep_answers(
    answers: Batches, texts: Sequence[str], store: SoftLabelStore, about: str = "labelling"
) -> None:
    """Write the answers to texts shard by shard, also those before an error that ends them.

    ``about`` says in the display of the progress what is done.
    """
    progress, done = Progress(about, "rows"), 0
    progress.start(len(texts))
    waiting: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    try:
        for rows, logits in answers:
            waiting.append((rows, logits))
            done += len(rows)
            progress.reach(done)
            if sum(len(rows) for rows, _ in waiting) >= SHARD_ROWS:
                _write(waiting, texts, store)
    finally:
        _write(waiting, texts, store)
        progress.stop()


def _write(
    waiting: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
    texts: Sequence[str],
    store: SoftLabelStore,
) -> None:
    if waiting:
        numbers = np.concatenate([rows for rows, _ in waiting])
        store.add([texts[row] for row in numbers], np.concatenate([x for _, x in waiting]))
        waiting.clear()
