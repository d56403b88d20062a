"""Token ids of a corpus: computed once for each tokenizer and kept as Arrow for the whole grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from datasets import Dataset, load_from_disk
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from distill_tasks.core.digests import digest, digest_texts
from distill_tasks.core.integrity import write_manifest
from distill_tasks.core.store import Store
from distill_tasks.training.tokens import ANSWERS, LENGTH, encode


@dataclass(frozen=True)
class Tokens:
    """Tokenises texts, or reads their token ids if they were kept before."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    folder: Path | None
    """The folder in which token ids are kept; None computes them each time."""

    def read(self, texts: Sequence[str]) -> Dataset:
        """Return token ids, attention mask and length of every text."""
        if self.folder is None:
            return self._make(texts)
        kept = self.folder / digest(self._rules(), digest_texts(texts))
        if Store(self.folder.parent).manifest(self.folder.name, kept.name) is None:
            self._keep(self._make(texts), kept)
        return load_from_disk(str(kept))

    def read_rows(
        self,
        texts: Sequence[str],
        labels: NDArray[np.int64],
        teacher_logits: NDArray[np.float32] | None = None,
        answer_weights: NDArray[np.float32] | None = None,
    ) -> Dataset:
        """Return the token ids of training rows, with labels and the teacher's answers as columns.

        ``labels`` are gold, -1 where it is absent, ``teacher_logits`` (rows, classes),
        ``answer_weights`` (rows,) how much each of these counts, 1 where they are absent.
        """
        dataset = self.read(texts)
        columns = zip(("labels", *ANSWERS), (labels, teacher_logits, answer_weights), strict=True)
        for name, column in columns:
            if column is not None:  # a given fingerprint is faster than hashing the column
                dataset = dataset.add_column(name, list(column), new_fingerprint=name)
        return dataset

    def _rules(self) -> list[object]:
        """Return everything besides the texts that the token ids depend on."""
        # Encoding sets the truncation, which is part of the tokenizer's text.
        self._encode([""])
        return [self.tokenizer.backend_tokenizer.to_str(), self.tokenizer.model_input_names]

    def _keep(self, made: Dataset, kept: Path) -> None:
        """Write a folder by rename, unless another process has written it meanwhile."""
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
