"""Token ids of a corpus: made once for a tokenizer and kept as Arrow, for the whole grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, disable_progress_bars, load_from_disk
from transformers import BatchEncoding, PreTrainedTokenizerBase

from distill_tasks.digests import digest, digest_texts

STEP = 8
"""Batches are as long as a multiple of this: their shapes are few, and so are compiled kernels."""
LENGTH = "length"
"""The column with the tokens of each row, by which batches are made of rows of like length."""

disable_progress_bars()


def pad(tokenizer: PreTrainedTokenizerBase, rows: Any, max_length: int) -> BatchEncoding:
    """Return rows of token ids as one batch, each tensor (rows, tokens of the longest).

    The length is rounded up to a multiple of `STEP` where so many tokens may be read.
    """
    step = STEP if max_length % STEP == 0 else None
    return tokenizer.pad(rows, pad_to_multiple_of=step, return_tensors="pt")


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
        if not kept.is_dir():
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
        with TemporaryDirectory(dir=kept.parent) as drafts:
            draft = Path(drafts, kept.name)
            made.save_to_disk(draft)
            try:
                draft.rename(kept)
            except OSError:
                if not kept.is_dir():
                    raise

    def _make(self, texts: Sequence[str]) -> Dataset:
        encoded = self._encode(texts)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        return Dataset.from_dict({**encoded, LENGTH: lengths})

    def _encode(self, texts: Sequence[str]) -> BatchEncoding:
        encoded: BatchEncoding = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_length
        )
        return encoded
