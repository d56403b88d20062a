"""Soft labels: what the teacher answered, kept row by row so that nothing is asked twice."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill_tasks.digests import digest_texts
from distill_tasks.errors import InputError, shortlist

SHARD_ROWS = 512
"""Rows written at once: what a kill can lose at most."""


@dataclass(frozen=True)
class SoftLabels:
    """Teacher answers for some rows: logits (rows, classes) float32, before any temperature."""

    logits: NDArray[np.float32]
    classes: tuple[str, ...]
    teacher: str
    """Digest of the teacher that gave them."""


class SoftLabelStore:
    """The answers of one teacher under ``root/<teacher digest>/``, on any fsspec file system."""

    def __init__(self, root: str, teacher: str, classes: Sequence[str]) -> None:
        self.fs, path = fsspec.core.url_to_fs(root)
        self.folder = f"{path}/{teacher}"
        self.teacher = teacher
        self.classes = tuple(classes)
        self.fs.makedirs(self.folder, exist_ok=True)
        self._claim_class_order()
        self._answers = dict(self._read_shards())

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Return the distinct texts that the teacher has not answered yet."""
        distinct = list(dict.fromkeys(texts))
        digests = digest_texts(distinct)
        return [
            text for text, key in zip(distinct, digests, strict=True) if key not in self._answers
        ]

    def add(self, texts: Sequence[str], logits: NDArray[np.float32]) -> None:
        """Write the answers (rows, classes) to some texts as one shard, by rename."""
        if not len(texts):
            return
        digests, logits = digest_texts(texts), np.ascontiguousarray(logits, np.float32)
        columns = {
            "row": pa.array(digests),
            "logits": pa.FixedSizeListArray.from_arrays(logits.ravel(), logits.shape[1]),
        }
        name = f"{self.folder}/{uuid.uuid4().hex}"
        with self.fs.open(f"{name}.partial", "wb") as file:
            pq.write_table(pa.table(columns), file)
        self.fs.mv(f"{name}.partial", f"{name}.parquet")
        self._answers.update(zip(digests, logits, strict=True))

    def read(self, texts: Sequence[str]) -> SoftLabels:
        """Return the answers to texts, in their order.

        Raises InputError if the teacher has not answered them all.
        """
        absent = self.missing(texts)
        if absent:
            raise InputError(
                f"Teacher {self.teacher} has no answer to {len(absent)} rows, the first being "
                f"{absent[0][:60]!r}. Label them first."
            )
        rows = [self._answers[key] for key in digest_texts(texts)]
        logits = np.stack(rows) if rows else np.empty((0, len(self.classes)), np.float32)
        return SoftLabels(logits, self.classes, self.teacher)

    def _claim_class_order(self) -> None:
        path = f"{self.folder}/classes.json"
        if not self.fs.exists(path):
            with self.fs.open(f"{path}.partial", "w") as file:
                json.dump(self.classes, file)
            self.fs.mv(f"{path}.partial", path)
            return
        with self.fs.open(path) as file:
            found = tuple(json.load(file))
        if found != self.classes:
            raise InputError(
                f"The store of teacher {self.teacher} has the classes {shortlist(found)}; asked "
                f"for {shortlist(self.classes)}. Remove {self.folder} to label afresh."
            )

    def _read_shards(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for path in sorted(self.fs.glob(f"{self.folder}/*.parquet")):
            with self.fs.open(path, "rb") as file:
                table: Any = pq.read_table(file)
            logits = table["logits"].combine_chunks().flatten().to_numpy()
            yield from zip(
                table["row"].to_pylist(), logits.reshape(table.num_rows, -1), strict=True
            )
