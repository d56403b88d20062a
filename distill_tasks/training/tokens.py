"""Token ids of texts and batches of them, for training and labelling alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distill_tasks.serving.served_text import bound, shorten

STEP = 8
"""Batches are padded to a multiple of this, so that there are few shapes and compiled kernels."""
LENGTH = "length"
"""The column with the number of tokens of each row, by which rows are grouped into batches."""
ANSWERS = "teacher_logits", "answer_weights"
"""The columns with the teacher's answer to each row, and with how much it counts."""
PICKED_ROWS = 32
"""Number of rows on which two ways to tokenise or to answer are compared."""


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> dict[str, list[list[int]]]:
    """Return the token ids of each text, their mask and, if the tokenizer has them, token types.

    Training and labelling both use them. A text without tokens becomes one padding token, as in the
    served model.
    """
    short = shorten_all(tokenizer, texts, max_length)
    encoded = tokenizer(short, truncation=True, max_length=max_length)
    alone = {"input_ids": tokenizer.pad_token_id, "attention_mask": 1}
    return {name: [row or [alone.get(name, 0)] for row in rows] for name, rows in encoded.items()}


def shorten_all(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[str]:
    """Return the part of each text that contains all tokens up to the tokenizer's limit."""
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

    Each tensor is (rows, tokens of the longest row), rounded up to a multiple of `STEP` as far as
    the limit allows. The tokenizer's own method takes ten times longer (docs/decisions.md).
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
