"""The store: folders named by digest, each complete once its manifest.json exists."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from distill_tasks.core.errors import InputError, PotstillError, shortlist, stop_if_disk_full
from distill_tasks.core.integrity import (
    MANIFEST,
    DamagedError,
    Manifest,
    check_readable,
    read_manifest,
    write_manifest,
)
from distill_tasks.core.run_lock import hold

__all__ = ["MANIFEST", "Store"]

logger = logging.getLogger("potstill")

BUILDING = ".building"
"""The file in a draft that the process building it holds locked."""
REPLACED = ".replaced.partial"
"""The suffix of a folder that was moved away because a new one replaces it."""
CHECKPOINT = "checkpoint-*"
"""Folders in a draft from which its training can be continued."""

T = TypeVar("T")

_told: set[Path] = set()
"""Stores for which this process has already logged that they were written without digests."""


@dataclass(frozen=True)
class Name:
    """The name that identifies a store."""

    name: str


class Store:
    """Keeps what a run makes under ``root/kind/digest`` so that nothing is made twice."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @property
    def labels(self) -> str:
        """The folder with the answers of all teachers."""
        return f"{self.root}/labels"

    @property
    def identity(self) -> str:
        """A name that no other store has, made when it is first needed."""
        return self.remember("identity", "store", Name, lambda: Name(uuid.uuid4().hex))[0].name

    def folder(self, kind: str, digest: str) -> Path:
        """Return the folder of a kind and digest, complete or not."""
        return self.root / kind / digest

    def manifest(self, kind: str, digest: str, *keys: str) -> dict[str, Any] | None:
        """Return the manifest of a folder whose files are as they were written, or None.

        A damaged folder is reported in the log, moved aside, and treated as if it had never been
        made. A folder from before digests were stored is accepted as it is if its files can be read
        and its manifest has ``keys``; it gets digests then.
        """
        try:
            found = self._read(kind, digest)
            if found is not None and found.files is None:
                if absent := [key for key in keys if key not in found.about]:
                    raise DamagedError(f"{MANIFEST} has no {shortlist(absent)}")
                self._adopt(kind, digest, found.about)
        except DamagedError as damage:
            self._set_aside(kind, digest, damage)
            return None
        return None if found is None else found.about

    def draft(self, kind: str, digest: str) -> Path:
        """Return the draft folder of a kind and digest, in which `build` continues."""
        draft = self.folder(kind, f"{digest}.partial")
        with suppress(FileExistsError):  # or renamed meanwhile, as `exist_ok` does not allow
            draft.mkdir(parents=True)
        return draft

    @contextmanager
    def build(self, kind: str, digest: str, manifest: dict[str, Any]) -> Iterator[Path]:
        """Yield a draft folder that is renamed to the real one when the block succeeds.

        The draft of a killed run is found again, so that a checkpoint in it can be continued; a
        failed draft without a checkpoint is removed. The manifest may be filled inside the block
        and is written last. A second process that builds the same folder waits, then builds it
        again.
        """
        final = self.folder(kind, digest)
        with self._alone(kind, digest) as draft:
            try:
                yield draft
                write_manifest(draft, f"{kind}/{digest}", manifest)
                if final.exists():  # a reader finds all of it or nothing
                    final.rename(tempfile.mkdtemp(dir=final.parent, suffix=REPLACED))
                draft.rename(final)
            except Exception:
                _remove_without_checkpoint(draft)
                raise
            (final / BUILDING).unlink(missing_ok=True)
        for left in (self._aside(kind, digest), *final.parent.glob(f"*{REPLACED}")):
            shutil.rmtree(left, ignore_errors=True)

    def keep(self, kind: str, digest: str, manifest: dict[str, Any]) -> None:
        """Store a folder that consists of its manifest alone."""
        with self.build(kind, digest, manifest):
            pass

    def remember(
        self, kind: str, digest: str, shape: type[T], make: Callable[[], T]
    ) -> tuple[T, bool]:
        """Return a stored dataclass, made first if it is missing, and whether it was stored."""
        adapter = TypeAdapter(shape)
        saved = self.manifest(kind, digest)
        if saved is not None:
            try:
                return adapter.validate_python(saved), True
            except ValidationError:  # only in stores from before digests
                damage = DamagedError(f"{MANIFEST} is no {shape.__name__}")
                self._set_aside(kind, digest, damage)
        found = make()
        self.keep(kind, digest, adapter.dump_python(found, mode="json", by_alias=True))
        return found, False

    def check_writable(self) -> None:
        """Raise InputError if the root folder cannot be made or written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root, prefix=".writable-"):
                pass
        except OSError as error:
            stop_if_disk_full(error)
            raise InputError(
                f"work_dir {self.root} cannot be written: {error.strerror}. "
                "Name a folder that this user may write."
            ) from None

    @contextmanager
    def lock(
        self,
        run: str = "a run",
        wait_minutes: float = 0,
        tell: Callable[[str], object] = logger.warning,
    ) -> Iterator[None]:
        """Lock the store for one run inside the block; the lock ends with the process.

        ``run`` describes the run to others that wait, ``tell`` hears for whom this one does. What
        earlier runs left half written is removed. Raises InputError if another run still works in
        the same folder after ``wait_minutes``, and DiskFullError if the disk becomes full.
        """
        self.check_writable()
        with hold(self.root, run, wait_minutes, tell):
            try:
                self._sweep()
                yield
            except Exception as error:
                stop_if_disk_full(error)
                raise

    def _read(self, kind: str, digest: str) -> Manifest | None:
        """Read a manifest, and again if another process replaced the folder meanwhile."""
        folder = self.folder(kind, digest)
        while True:
            before = _state(folder)
            try:
                return read_manifest(folder, f"{kind}/{digest}")
            except (DamagedError, FileNotFoundError):
                if before is not None and _state(folder) == before:
                    raise

    def _adopt(self, kind: str, digest: str, about: dict[str, Any]) -> None:
        folder = self.folder(kind, digest)
        check_readable(folder)
        if self.root not in _told:
            _told.add(self.root)
            logger.info(
                "store: %s holds what was written before files had digests; it is believed as it "
                "is now, and watched from now on",
                self.root,
            )
        with suppress(OSError):  # another user's store may be readable only
            write_manifest(folder, f"{kind}/{digest}", about)

    def _set_aside(self, kind: str, digest: str, damage: DamagedError) -> None:
        name = f" ({damage.name})" if damage.name else ""
        logger.warning(
            "store: %s/%s%s is not whole: %s; it is made again", kind, digest, name, damage
        )
        shutil.rmtree(self._aside(kind, digest), ignore_errors=True)
        with suppress(FileNotFoundError):
            self.folder(kind, digest).rename(self._aside(kind, digest))

    def _aside(self, kind: str, digest: str) -> Path:
        """Return the path of a damaged folder until it is made again."""
        return self.folder(kind, f"{digest}.damaged")

    @contextmanager
    def _alone(self, kind: str, digest: str) -> Iterator[Path]:
        """Yield a draft folder once no other process works in it."""
        held = None
        while held is None:
            draft = self.draft(kind, digest)
            try:
                held = _hold(draft / BUILDING)
            except OSError:  # the disk is full
                _remove_without_checkpoint(draft)
                raise
        with held:
            yield draft

    def _sweep(self) -> None:
        for pattern in ("*/*.partial", "*/*/*.partial"):
            for left in list(self.root.glob(pattern)):
                if not _is_held(left / BUILDING):
                    _remove_without_checkpoint(left)


def check_whole(folder: Path) -> None:
    """Raise PotstillError if a folder of the store is no longer as it was written."""
    try:
        if read_manifest(folder, f"{folder.parent.name}/{folder.name}") is None:
            raise DamagedError("it is gone")
    except DamagedError as damage:
        raise PotstillError(
            f"{folder} was damaged while the run was on: {damage}. "
            "The next run makes it again; look after this disk."
        ) from None


def _remove_without_checkpoint(left: Path) -> None:
    """Remove a half-written file or folder, unless a training can be continued from it."""
    if not left.is_dir():
        left.unlink(missing_ok=True)
    elif not any(left.rglob(CHECKPOINT)):
        shutil.rmtree(left, ignore_errors=True)


def _state(folder: Path) -> tuple[int, int] | None:
    """Return values that change if another folder takes a folder's place; None if it is missing."""
    with suppress(FileNotFoundError):
        about = folder.stat()
        return about.st_ino, about.st_ctime_ns
    return None


def _hold(building: Path) -> IO[str] | None:
    """Lock the file of a draft; return None if the draft was renamed or removed meanwhile."""
    with suppress(FileNotFoundError):
        file = building.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(file.fileno()), building.stat()):
            return file
    return None


def _is_held(building: Path) -> bool:
    """Return whether a process is working in a draft."""
    if not building.is_file():
        return False
    with building.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
