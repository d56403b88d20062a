"""Soft labels: the teacher's logits, stored for each text so that none is computed twice."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill_tasks.core.digests import digest, digest_texts
from distill_tasks.core.errors import InputError, shortlist

logger = logging.getLogger("potstill")

SHARD_ROWS = 512
"""Rows in one file: the most that a kill or a damaged file can lose."""
UNNAMED = 32
"""Characters in a shard's name from before 2026-11-26, which is no digest of its bytes."""
DAMAGED = ".damaged"
"""The suffix of a damaged file, which is no longer read."""


@dataclass(frozen=True)
class SoftLabels:
    """Teacher answers for some rows: logits (rows, classes) float32, before any temperature."""

    logits: NDArray[np.float32]
    classes: tuple[str, ...]
    teacher: str
    """Digest of the teacher that gave the answers."""


class SoftLabelStore:
    """The answers of one teacher under ``root/<teacher digest>/``, on any fsspec file system.

    A shard (file) is named by the digest of its bytes. If the bytes differ, or the shard cannot be
    read, it is reported in the log and renamed, and its rows count as not answered.
    """

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
        shard = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), shard)
        written = shard.getvalue().to_pybytes()
        self._write(f"{_name_shard(written)}.parquet", written)
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
        """Write the class order, or raise InputError if another one was written before.

        A damaged file is written again, which is safe: the digest of the teacher, by which the
        folder is named, depends on the order too.
        """
        path = f"{self.folder}/classes.json"
        found = self._read_class_order(path) if self.fs.exists(path) else None
        if found is None:
            written = {"classes": self.classes, "seal": digest(self.classes)}
            self._write("classes.json", json.dumps(written).encode())
        elif found != self.classes:
            raise InputError(
                f"The store of teacher {self.teacher} has the classes {shortlist(found)}; asked "
                f"for {shortlist(self.classes)}. Remove {self.folder} to label afresh."
            )

    def _read_class_order(self, path: str) -> tuple[str, ...] | None:
        try:
            written = json.loads(self.fs.cat_file(path))
            if isinstance(written, list):  # of before 2026-11-26
                return tuple(written)
            if written["seal"] == digest(written["classes"]):
                return tuple(written["classes"])
        except (ValueError, KeyError, TypeError):
            pass
        self._set_aside(path, "the order of the teacher's classes is written again")
        return None

    def _read_shards(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        paths = {_stem(path): path for path in sorted(self.fs.glob(f"{self.folder}/*.parquet"))}
        for name, path in paths.items():
            written = self.fs.cat_file(path)
            whole = _name_shard(written) in paths  # under whichever of the names
            answers = self._parse_shard(written) if whole or len(name) == UNNAMED else None
            if answers is None:
                lost = f"the teacher is asked its rows again, {SHARD_ROWS} at most"
                self._set_aside(path, lost)
                continue
            if len(name) == UNNAMED:  # believed as it lies there, and watched from now on
                self.fs.mv(path, f"{self.folder}/{_name_shard(written)}.parquet")
            yield from answers

    def _parse_shard(self, written: bytes) -> list[tuple[str, NDArray[np.float32]]] | None:
        """Return digest and logits of each row of a shard, or None if the bytes are no shard."""
        try:
            table: Any = pq.read_table(pa.BufferReader(written))
            logits = table["logits"].combine_chunks().flatten().to_numpy()
            rows = logits.reshape(table.num_rows, len(self.classes))
            return list(zip(table["row"].to_pylist(), rows, strict=True))
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return None

    def _write(self, name: str, written: bytes) -> None:
        """Write a file by rename; if that fails, nothing is left behind."""
        draft = f"{self.folder}/{uuid.uuid4().hex}.partial"
        try:
            self.fs.pipe_file(draft, written)
            self.fs.mv(draft, f"{self.folder}/{name}")
        except BaseException:
            if self.fs.exists(draft):
                self.fs.rm(draft)
            raise

    def _set_aside(self, path: str, lost: str) -> None:
        logger.warning("labels: %s is damaged and set aside as %s; %s", path, DAMAGED, lost)
        self.fs.mv(path, f"{path}{DAMAGED}")


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[1].removesuffix(".parquet")


def _name_shard(written: bytes) -> str:
    """Return the file name of a shard with these bytes."""
    return hashlib.sha256(written).hexdigest()
