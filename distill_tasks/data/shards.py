"""Files of a teacher's answers, named by the digest of their bytes, merged as they grow many."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill_tasks.core.digests import LENGTH

logger = logging.getLogger("potstill")

LARGE_ROWS = 4096
"""A shard of so many rows is not merged any more; a merged one has less than twice as many."""
MOST_SMALL = 64
"""So many smaller shards are merged, however few rows they have."""
UNNAMED = 32
"""Characters in a shard's name from before 2026-11-26, which is no digest of its bytes."""
DAMAGED = ".damaged"
"""The suffix of a damaged file, which is no longer read."""


@dataclass(frozen=True, eq=False)
class Shard:
    """The answers to some rows: their digests (rows,) uint64, and logits (rows, classes)."""

    digests: NDArray[np.uint64]
    logits: NDArray[np.float32]
    censored: NDArray[np.float32]
    """(rows,) The probability that classes share of which the reply said nothing; NaN: unknown."""

    def __len__(self) -> int:
        return len(self.digests)

    @classmethod
    def join(cls, shards: Collection[Shard]) -> Shard:
        """Return the rows of several shards as one."""
        return cls(
            np.concatenate([shard.digests for shard in shards]),
            np.concatenate([shard.logits for shard in shards]),
            np.concatenate([shard.censored for shard in shards]),
        )

    def to_bytes(self) -> bytes:
        """Return the shard as Parquet; raise ValueError if not every row has its logits."""
        names = self.digests.astype(">u8").tobytes().hex()
        columns = {
            "row": pa.array([names[at : at + LENGTH] for at in range(0, len(names), LENGTH)]),
            "logits": pa.FixedSizeListArray.from_arrays(self.logits.ravel(), self.logits.shape[1]),
        }
        if not np.isnan(self.censored).all():
            columns["censored"] = pa.array(self.censored)
        file = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), file, use_dictionary=False)
        written: bytes = file.getvalue().to_pybytes()
        return written

    @classmethod
    def parse(cls, written: bytes, classes: int) -> Shard | None:
        """Return the shard that was written as these bytes, or None if they are none."""
        try:
            table: Any = pq.read_table(pa.BufferReader(written))
            logits = table["logits"].combine_chunks().flatten().to_numpy()
            digests = to_numbers(table["row"].to_pylist())
            censored = np.full(len(digests), np.nan, np.float32)
            if "censored" in table.column_names:
                censored = table["censored"].to_numpy()
            return cls(digests, logits.reshape(len(digests), classes), censored)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            return None


def to_numbers(digests: list[str]) -> NDArray[np.uint64]:
    """Return hexadecimal digests as numbers (rows,); raise ValueError for anything else."""
    numbers = np.frombuffer(bytes.fromhex("".join(digests)), ">u8")
    if len(numbers) != len(digests):
        raise ValueError(f"every digest has {LENGTH} hexadecimal characters")
    return numbers.astype(np.uint64)


class ShardFolder:
    """A folder of shards on any fsspec file system, which several processes may use at once.

    A shard is named by the digest of its bytes. If the bytes differ, or it cannot be read, it is
    reported in the log and renamed. Small shards are merged: first the merged one is written, then
    they are removed, so that a kill between the two leaves rows twice, and none is ever lost.
    """

    def __init__(self, root: str, name: str) -> None:
        self.fs, path = fsspec.core.url_to_fs(root)
        self.path = f"{path}/{name}"
        self.fs.makedirs(self.path, exist_ok=True)
        self._small: dict[str, Shard] = {}

    def read(self, classes: int) -> Iterator[Shard]:
        """Return every shard of so many classes.

        The folder is listed until nothing new is in it: a shard that is gone by the time it is
        opened was merged by another process, into one that the next list has.
        """
        seen: set[str] = set()
        while new := (names := self._list()) - seen:
            seen |= names
            for name in sorted(new):
                with contextlib.suppress(FileNotFoundError):
                    written = self.fs.cat_file(self._locate(name))
                    digest = _digest(written)
                    shard = self._check(name, written, digest in names, classes)
                    if shard is not None:
                        seen.add(digest)
                        self._count(digest, shard)
                        yield shard

    def add(self, shard: Shard) -> None:
        """Write a shard, and merge the small ones if there are many."""
        self._keep(shard)
        while self._are_many():
            self._merge()

    def write(self, name: str, written: bytes) -> None:
        """Write a file by rename; if that fails, nothing is left behind."""
        draft = f"{self.path}/{uuid.uuid4().hex}.partial"
        try:
            self.fs.pipe_file(draft, written)
            self.fs.mv(draft, f"{self.path}/{name}")
        except BaseException:
            if self.fs.exists(draft):
                self.fs.rm(draft)
            raise

    def set_aside(self, path: str, lost: str) -> None:
        """Rename a damaged file, and say in the log what that costs."""
        logger.warning("labels: %s is damaged and set aside as %s; %s", path, DAMAGED, lost)
        self.fs.mv(path, f"{path}{DAMAGED}")

    def _check(self, name: str, written: bytes, whole: bool, classes: int) -> Shard | None:
        """Return the shard in a file, or set the file aside.

        ``whole`` says that its digest is the name of a shard, be it another one's.
        """
        old = len(name) == UNNAMED
        shard = Shard.parse(written, classes) if whole or old else None
        if shard is None:
            most = f"{2 * LARGE_ROWS:,} at most"
            lost = f"the teacher is asked its rows again, {most}"
            self.set_aside(self._locate(name), lost)
        elif old:  # believed as it lies there, and watched from now on
            self.fs.mv(self._locate(name), self._locate(_digest(written)))
        return shard

    def _list(self) -> set[str]:
        self.fs.invalidate_cache(self.path)
        names = [path.rsplit("/", 1)[1] for path in self.fs.ls(self.path, detail=False)]
        return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}

    def _locate(self, name: str) -> str:
        return f"{self.path}/{name}.parquet"

    def _keep(self, shard: Shard) -> str:
        written = shard.to_bytes()
        name = _digest(written)
        self.write(f"{name}.parquet", written)
        self._count(name, shard)
        return name

    def _count(self, name: str, shard: Shard) -> None:
        if len(shard) < LARGE_ROWS:
            self._small[name] = shard

    def _are_many(self) -> bool:
        rows = sum(map(len, self._small.values()))
        return len(self._small) >= MOST_SMALL or rows >= LARGE_ROWS

    def _merge(self) -> None:
        """Merge small shards, those that were there first, until they make a large one."""
        merged: dict[str, Shard] = {}
        while self._small and sum(map(len, merged.values())) < LARGE_ROWS:
            name = next(iter(self._small))
            merged[name] = self._small.pop(name)
        written = self._keep(Shard.join(merged.values()))
        for name in merged.keys() - {written}:
            with contextlib.suppress(FileNotFoundError):  # another process did
                self.fs.rm_file(self._locate(name))


def _digest(written: bytes) -> str:
    """Return the file name of a shard with these bytes."""
    return hashlib.sha256(written).hexdigest()
