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

    Waiting = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
    """A batch that is not yet written; what is censored is NaN where it is not known."""


def keep_answers(
    answers: Batches, texts: Sequence[str], store: SoftLabelStore, about: str = "labelling"
) -> None:
    """Write the answers to texts shard by shard, also those before an error that ends them.

    ``about`` says in the display of the progress what is done.
    """
    progress, done = Progress(about, "rows"), 0
    progress.start(len(texts))
    waiting: list[Waiting] = []
    try:
        for rows, logits, *told in answers:
            censored = told[0] if told else np.full(len(rows), np.nan, np.float32)
            waiting.append((rows, logits, censored))
            done += len(rows)
            progress.reach(done)
            if sum(len(rows) for rows, _, _ in waiting) >= SHARD_ROWS:
                _write(waiting, texts, store)
    finally:
        _write(waiting, texts, store)
        progress.stop()


def _write(waiting: list[Waiting], texts: Sequence[str], store: SoftLabelStore) -> None:
    if waiting:
        rows, logits, censored = (np.concatenate(part) for part in zip(*waiting, strict=True))
        store.add([texts[row] for row in rows], logits, censored)
        waiting.clear()
