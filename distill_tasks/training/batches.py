"""Batches of rows of similar length, in an order determined by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

from distill_tasks.core.digests import digest
from distill_tasks.training.recipe import Recipe
from distill_tasks.training.tokens import ANSWERS, LENGTH, pad

SORTED_STEPS = 4
"""Steps whose rows are drawn together and sorted by length. With more steps, batches become
unbalanced if the length of a text depends on its class (docs/decisions.md)."""


class Order(LengthGroupedSampler):
    """Rows in batches of similar length, in an order determined by seed and epoch alone."""

    def __init__(
        self, recipe: Recipe, lengths: Sequence[int], read_epoch: Callable[[], int]
    ) -> None:
        rows = recipe.batch_rows * recipe.accumulated_batches
        super().__init__(rows, lengths=list(lengths), generator=torch.Generator())
        self.seed = recipe.seed
        self.read_epoch = read_epoch

    def __iter__(self) -> Iterator[int]:
        # asked, because a Trainer tells no epoch where several processes go on within one
        self.generator.manual_seed(int(digest(self.seed, self.read_epoch()), 16))
        return iter(
            get_length_grouped_indices(
                self.lengths, self.batch_size, SORTED_STEPS, generator=self.generator
            )
        )


class Collator:
    """Makes a batch: pads the token ids and stacks the other columns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return some rows as one batch."""
        extra: dict[str, Tensor] = {
            key: torch.from_numpy(np.array([row.pop(key) for row in rows]))
            for key in ("labels", *ANSWERS)
            if key in rows[0]
        }
        for key in extra.keys() & ANSWERS:
            extra[key] = extra[key].float()
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != LENGTH}
        return {**pad(self.tokenizer, columns, self.max_length), **extra}
