"""Soft labels: the teacher's logits, stored for each text so that none is computed twice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.digests import digest, digest_texts
from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.data.shards import Shard, ShardFolder, to_numbers

SHARD_ROWS = 512
"""Rows that are written at once: the most that a kill can lose."""


@dataclass(frozen=True)
class SoftLabels:
    """Teacher answers for some rows: logits (rows, classes) float32, before any temperature."""

    logits: NDArray[np.float32]
    classes: tuple[str, ...]
    teacher: str
    """Digest of the teacher that gave the answers."""
    weights: NDArray[np.float32] | None = None
    """How much each answer (rows,) counts where it is learned from; None if all count alike."""

    def take(self, rows: NDArray[np.int64]) -> SoftLabels:
        """Return the answers to the chosen rows."""
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, logits=self.logits[rows], weights=weights)


class SoftLabelStore:
    """The answers of one teacher under ``root/<teacher digest>/``, on any fsspec file system.

    A million rows of 20 classes take about 100 MB of memory. Rows in damaged files count as not
    answered.
    """

    def __init__(self, root: str, teacher: str, classes: Sequence[str]) -> None:
        self.files = ShardFolder(root, teacher)
        self.teacher = teacher
        self.classes = tuple(classes)
        self._claim_class_order()
        self._index = RowIndex()
        nothing = np.empty(0, np.float32)
        self._logits, self._censored = [nothing.reshape(0, len(self.classes))], [nothing]
        for shard in self.files.read(len(self.classes)):
            self._remember(shard)

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Return the distinct texts that the teacher has not answered yet."""
        distinct = list(dict.fromkeys(texts))
        absent = self._find(distinct) < 0
        return [distinct[row] for row in np.flatnonzero(absent)]

    def add(
        self,
        texts: Sequence[str],
        logits: NDArray[np.float32],
        censored: NDArray[np.float32] | None = None,
    ) -> None:
        """Write the answers (rows, classes) to some texts as one shard, by rename.

        ``censored`` is the probability (rows,) that classes share of which the reply said nothing,
        NaN where that is not known.
        """
        if not len(texts):
            return
        if censored is None:
            censored = np.full(len(texts), np.nan, np.float32)
        digests = to_numbers(digest_texts(texts))
        shard = Shard(digests, np.ascontiguousarray(logits, np.float32), censored)
        self.files.add(shard)
        self._remember(shard)

    def read(self, texts: Sequence[str]) -> SoftLabels:
        """Return the answers to texts, in their order.

        Raises InputError if the teacher has not answered them all.
        """
        rows = self._locate(texts)
        self._logits = [np.concatenate(self._logits)]
        return SoftLabels(self._logits[0][rows], self.classes, self.teacher)

    def read_censored(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return what was censored (rows,) in the answers to texts; NaN where it is not known.

        Raises InputError as `read` does.
        """
        rows = self._locate(texts)
        self._censored = [np.concatenate(self._censored)]
        return self._censored[0][rows]

    def _locate(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the places of the answers to texts, or raise InputError if some have none."""
        rows = self._find(texts)
        if (rows < 0).any():
            absent = self.missing(texts)
            raise InputError(
                f"Teacher {self.teacher} has no answer to {len(absent)} rows, the first being "
                f"{absent[0][:60]!r}. Label them first."
            )
        return rows

    def _find(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return self._index.find(to_numbers(digest_texts(texts)))

    def _remember(self, shard: Shard) -> None:
        self._index.add(shard.digests)
        self._logits.append(shard.logits)
        self._censored.append(shard.censored)

    def _claim_class_order(self) -> None:
        """Write the class order, or raise InputError if another one was written before.

        A damaged file is written again, which is safe: the digest of the teacher, by which the
        folder is named, depends on the order too.
        """
        path = f"{self.files.path}/classes.json"
        found = self._read_class_order(path) if self.files.fs.exists(path) else None
        if found is None:
            written = {"classes": self.classes, "seal": digest(self.classes)}
            self.files.write("classes.json", json.dumps(written).encode())
        elif found != self.classes:
            raise InputError(
                f"The store of teacher {self.teacher} has the classes {shortlist(found)}; asked "
                f"for {shortlist(self.classes)}. Remove {self.files.path} to label afresh."
            )

    def _read_class_order(self, path: str) -> tuple[str, ...] | None:
        try:
            written = json.loads(self.files.fs.cat_file(path))
            if isinstance(written, list):  # of before 2026-11-26
                return tuple(written)
            if written["seal"] == digest(written["classes"]):
                return tuple(written["classes"])
        except (ValueError, KeyError, TypeError):
            pass
        self.files.set_aside(path, "the order of the teacher's classes is written again")
        return None


def digest_prefix(text: str) -> str:
    """Return the first of the hexadecimal characters of a text's digest."""
    return digest_texts([text])[0][0]


class RowIndex:
    """Finds rows by their digests, which are kept as sorted numbers: 16 bytes a row."""

    def __init__(self) -> None:
        self._digests = np.empty(0, np.uint64)
        self._rows = np.empty(0, np.int64)
        self._new: list[NDArray[np.uint64]] = []

    def add(self, digests: NDArray[np.uint64]) -> None:
        """Give the digests (rows,) of the next rows."""
        self._new.append(digests)

    def find(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the numbers of rows (rows,), the last of several alike; -1 where there is none."""
        self._sort()
        at = np.searchsorted(self._digests, digests, side="right") - 1
        found = at >= 0
        found[found] = self._digests[at[found]] == digests[found]
        rows = np.full(len(digests), -1)
        rows[found] = self._rows[at[found]]
        return rows

    def _sort(self) -> None:
        """Bring the new rows into the order, those with equal digests as they came."""
        if not self._new:
            return
        known = len(self._digests)
        digests = np.concatenate([self._digests, *self._new])
        rows = np.concatenate([self._rows, np.arange(known, len(digests))])
        order = np.argsort(digests, kind="stable")
        self._digests, self._rows, self._new = digests[order], rows[order], []
