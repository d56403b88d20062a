"""A sequence classifier that answers many texts quickly, as teachers must."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.problems.classification import Problem
from distill_tasks.training.device import choose_device

if TYPE_CHECKING:
    from numpy.typing import NDArray


PROBLEM_TYPES: dict[Problem, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
}
"""The name that transformers has for each kind of problem."""


LABELLING_BATCH_ROWS = 32
"""Rows in a batch: larger ones exceed the CPU's cache and were slower (docs/decisions.md)."""


class SequenceClassifier:
    """A sequence classifier that answers in length-sorted batches, in the fastest precision.

    With ``exact`` it answers in float32.
    """

    def __init__(
        self,
        model: str | Path,
        max_length: int,
        revision: str | None = None,
        exact: bool = False,
    ) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from distill_tasks.training.first_token import read_first_token

        self.device = choose_device()
        self.max_length = max_length
        self.tokenizer = AutoTokenizer.from_pretrained(
            model, revision=revision, trust_remote_code=False
        )
        self.model = AutoModelForSequenceClassification.from_pretrained(
            model,
            revision=revision,
            trust_remote_code=False,
            dtype=torch.bfloat16 if self.device.bf16 and not exact else torch.float32,
        )
        read_first_token(self.model)
        self.model.eval().to(self.device.kind)

    def answer(
        self, texts: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (row numbers, logits (rows, classes)) batch by batch, shortest texts first."""
        import torch

        from distill_tasks.training.compilation import FasterReader
        from distill_tasks.training.tokens import encode, pad

        encoded = encode(self.tokenizer, texts, self.max_length)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        order = np.argsort(lengths, kind="stable")
        with closing(FasterReader(self.model, lengths.sum())) as read:
            for start in range(0, len(order), LABELLING_BATCH_ROWS):
                rows = order[start : start + LABELLING_BATCH_ROWS]
                batch = {key: [values[row] for row in rows] for key, values in encoded.items()}
                padded = pad(self.tokenizer, batch, self.max_length)
                inputs = {name: ids.to(self.device.kind) for name, ids in padded.items()}
                with torch.inference_mode():
                    logits = read(**inputs).logits.float().cpu().numpy()
                yield rows, logits

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes) in the order of the texts."""
        rows, answers = zip(*self.answer(texts), strict=True)
        logits: NDArray[np.float32] = np.concatenate(answers)[np.argsort(np.concatenate(rows))]
        return logits
