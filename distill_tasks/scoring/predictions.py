"""The answers of models to whole splits, asked in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import PotstillError, shortlist
from distill_tasks.core.live import Progress
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Split
from distill_tasks.problems.classification import Answering, Logits

CODE_VERSION = 1
"""Raised when a change of the code changes what a model answers."""

BATCH_ROWS = 32

T = TypeVar("T")


def answer_sorted(model: Answering, texts: Sequence[str], name: str) -> Logits:
    """Return logits (rows, classes) in the texts' order.

    Raises PotstillError, naming the model and its rows, for NaN or infinity.
    """
    logits: Logits = np.stack(ask_sorted(model.logits, texts, name))
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if broken.size:
        raise PotstillError(
            f"{name} answered NaN or infinity in {broken.size} of {len(texts)} rows "
            f"(row {shortlist(broken)}). Lower its learning rate."
        )
    return logits


def ask_sorted(
    ask: Callable[[Sequence[str]], Iterable[T]], texts: Sequence[str], name: str
) -> list[T]:
    """Return the answer to each text, asked in batches, the shortest texts first."""
    progress = Progress(f"asking {name}", "rows")
    progress.start(len(texts))
    answers = ask_by_length(ask, texts, progress.reach)
    progress.stop()
    return answers


def ask_by_length(
    ask: Callable[[Sequence[str]], Iterable[T]],
    texts: Sequence[str],
    reach: Callable[[int], object] = id,
) -> list[T]:
    """Return what `ask_sorted` does; ``reach`` is told how many are answered."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    answers: list[T] = []
    for start in range(0, len(order), BATCH_ROWS):
        answers.extend(ask([texts[row] for row in order[start : start + BATCH_ROWS]]))
        reach(len(answers))
    places = np.argsort(order)
    return [answers[place] for place in places]


class AnswerStore:
    """The answers of models to one split, kept by the digest of the model."""

    def __init__(self, store: Store, split: Split) -> None:
        self.store = store
        self.split = split

    def holds(self, model: str) -> bool:
        """Return whether a model's answers are kept."""
        return self.store.manifest("answers", self._key(model)) is not None

    def _key(self, model: str) -> str:
        return digest(CODE_VERSION, model, self.split.digest)

    def read(self, model: str, name: str, open_it: Callable[[], Answering]) -> Logits:
        """Return a model's logits (rows, classes), asked where they are not kept yet."""
        key = self._key(model)
        if not self.holds(model):
            logits = answer_sorted(open_it(), self.split.texts, name)
            with self.store.build("answers", key, {"name": name, "rows": len(logits)}) as draft:
                np.save(draft / "logits.npy", logits, allow_pickle=False)
        kept: Logits = np.load(self.store.folder("answers", key) / "logits.npy", allow_pickle=False)
        return kept
