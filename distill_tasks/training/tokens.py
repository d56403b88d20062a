"""Token ids of a corpus: made once for a tokenizer and kept as Arrow, for the whole grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distill_tasks.core.digests import digest, digest_texts
from distill_tasks.core.integrity import write_manifest
from distill_tasks.core.store import Store
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


@dataclass(frozen=True)
class Tokens:
    """Turns texts into token ids, or reads them where they were turned before."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    folder: Path | None
    """Where token ids are kept; None makes them each time."""

    def read(self, texts: Sequence[str]) -> Dataset:
        """Return token ids, attention mask and length of every text."""
        if self.folder is None:
            return self._make(texts)
        kept = self.folder / digest(self._rules(), digest_texts(texts))
        if Store(self.folder.parent).manifest(self.folder.name, kept.name) is None:
            self._keep(self._make(texts), kept)
        return load_from_disk(str(kept))

    def _rules(self) -> list[object]:
        """Return what token ids follow from, beside the texts."""
        # Its state is part of what it says and is saved as: the same whether ids are kept or not.
        self._encode([""])
        return [self.tokenizer.backend_tokenizer.to_str(), self.tokenizer.model_input_names]

    def _keep(self, made: Dataset, kept: Path) -> None:
        """Make a folder by rename; one that another process made meanwhile stays as it is."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent, suffix=".partial") as drafts:
            draft = Path(drafts, kept.name)
            made.save_to_disk(draft)
            write_manifest(draft, f"{kept.parent.name}/{kept.name}", {})
            try:
                draft.rename(kept)
            except OSError:
                if not kept.is_dir():
                    raise

    def _make(self, texts: Sequence[str]) -> Dataset:
        encoded = self._encode(texts)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        return Dataset.from_dict({**encoded, LENGTH: lengths})

    def _encode(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        return encode(self.tokenizer, texts, self.max_length)
