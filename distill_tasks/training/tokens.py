"""Token ids of texts, and batches of them: what every training and labelling reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distill_tasks.serving.served_text import bound, shorten

STEP = 8
"""Batches are as long as a multiple of this: their shapes are few, and so are compiled kernels."""
LENGTH = "length"
"""The column with the tokens of each row, by which batches are made of rows of like length."""
PICKED_ROWS = 32
"""Rows by which two ways to read or to answer are compared."""


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> dict[str, list[list[int]]]:
    """Return what is read of each text: token ids, their mask and, where there are some, types.

    Every training and labelling reads these; a text without tokens is one of padding, as served.
    """
    short = shorten_all(tokenizer, texts, max_length)
    encoded = tokenizer(short, truncation=True, max_length=max_length)
    alone = {"input_ids": tokenizer.pad_token_id, "attention_mask": 1}
    return {name: [row or [alone.get(name, 0)] for row in rows] for name, rows in encoded.items()}


def shorten_all(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[str]:
    """Return of each text the part that all the tokens come from which are read of it."""
    backend = tokenizer.backend_tokenizer
    bound(backend, max_length, tokenizer.truncation_side)
    return [shorten(backend, text) for text in texts]


def pick_rows(texts: Sequence[str]) -> list[int]:
    """Return the numbers of up to `PICKED_ROWS` rows, from the shortest text to the longest."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    places = np.linspace(0, len(order) - 1, min(len(order), PICKED_ROWS)).astype(int)
    return [order[place] for place in places]


def pad(
    tokenizer: PreTrainedTokenizerBase,
    columns: Mapping[str, Sequence[Sequence[int]]],
    max_length: int,
) -> dict[str, Tensor]:
    """Return token ids, masks and types of some rows as a batch.

    Each tensor is (rows, tokens of the longest), rounded up to a multiple of `STEP` where so many
    tokens may be read. The tokenizer's own way takes ten times longer (docs/decisions.md).
    """
    longest = max(len(row) for row in columns["input_ids"])
    length = -(-longest // STEP) * STEP if max_length % STEP == 0 else longest
    fills = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    left = tokenizer.padding_side == "left"
    batch = {}
    for name, rows in columns.items():
        table = np.full((len(rows), length), fills.get(name, 0), np.int64)
        for cells, row in zip(table, rows, strict=True):
            cells[slice(length - len(row), None) if left else slice(len(row))] = row
        batch[name] = torch.from_numpy(table)
    return batch
