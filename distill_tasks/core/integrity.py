"""Integrity: a manifest by which damage to the files of a folder, or to itself, is detected.

``manifest.json`` holds what is known about a folder (``about``), the size and digest of every file
in it (``files``), and a digest of both and of the folder's place in the store (``seal``): so a
manifest with flipped bits, a truncated one, or one of another folder is detected too.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_tasks.core.digests import digest, digest_file

MANIFEST = "manifest.json"
KEYS = {"about", "files", "seal"}
"""The keys of a manifest; those written before 2026-11-26 consist of what is now ``about``."""

Seen = tuple[int, int, int, int, int]

_digests: dict[Seen, str] = {}
"""Digests that this process computed: a file that has not changed since is not read again."""


class DamagedError(Exception):
    """A file differs from what was written; the message says which file and how it differs."""

    def __init__(self, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Manifest:
    """What is known about a folder, and what its files should be."""

    about: dict[str, Any]
    files: dict[str, dict[str, Any]] | None
    """Size in bytes and digest of each file by its path; None in manifests without digests."""


def write_manifest(folder: Path, place: str, about: dict[str, Any]) -> None:
    """Write a manifest of the files that are in a folder now.

    ``place`` is the folder's final place in the store, even while it is still a draft elsewhere.
    """
    about = json.loads(json.dumps(about))  # as it will be read again: keys are strings
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "digest": _read(path)}
        for path in _files(folder)
    }
    written = {"about": about, "files": files, "seal": digest(place, about, files)}
    draft = folder / f"{MANIFEST}.{os.getpid()}.partial"
    draft.write_text(json.dumps(written, indent=2))
    draft.replace(folder / MANIFEST)


def read_manifest(folder: Path, place: str) -> Manifest | None:
    """Return the manifest of a folder, after checking that its files are as they were written.

    Returns None if there is no such folder. Raises DamagedError if anything differs.
    """
    manifest = _parse_manifest(folder, place)
    if manifest is None:
        return None
    for path, was in (manifest.files or {}).items():
        if (wrong := _compare(folder / path, was)) is not None:
            raise DamagedError(f"{path} {wrong}", manifest.about.get("name"))
    return manifest


def check_readable(folder: Path) -> None:
    """Raise DamagedError for a file that cannot be read as the format that its name says.

    This is the only possible check of files without stored digests.
    """
    for path in _files(folder):
        try:
            _read_as_named(path)
        except Exception as error:  # noqa: BLE001  # every format has errors of its own
            name = path.relative_to(folder).as_posix()
            raise DamagedError(f"{name} cannot be read ({type(error).__name__})") from None


def _parse_manifest(folder: Path, place: str) -> Manifest | None:
    try:
        written = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        if folder.is_dir() and any(_files(folder)):
            raise DamagedError(f"{MANIFEST} is missing") from None
        return None
    except (ValueError, OSError):
        raise DamagedError(f"{MANIFEST} cannot be read") from None
    if isinstance(written, dict) and not KEYS & written.keys():
        return Manifest(written, None)
    if not isinstance(written, dict) or written.keys() != KEYS:
        raise DamagedError(f"{MANIFEST} differs in its keys from what was written")
    if written["seal"] != digest(place, written["about"], written["files"]):
        raise DamagedError(f"{MANIFEST} differs in its content from what was written")
    return Manifest(written["about"], written["files"])


def _compare(path: Path, was: dict[str, Any]) -> str | None:
    """Return what is wrong with a file, or None if it is as it was written."""
    try:
        size = path.stat().st_size
        if size != was["bytes"]:
            return f"has {size:,} bytes, {was['bytes']:,} were written"
        return None if _read(path) == was["digest"] else "differs from the bytes that were written"
    except OSError as error:
        if error.errno == errno.ENOENT:
            return "is missing"
        return f"cannot be read ({error.strerror})"


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files that a manifest covers, in the same order on every machine."""
    for path in sorted(folder.rglob("*")):
        mine = path.parent == folder and (path.name.startswith((MANIFEST, ".")))
        if path.is_file() and not mine:
            yield path


def _read(path: Path) -> str:
    """Return the digest of a file, which is read again only if it changed."""
    about = path.stat()
    key = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
    if key not in _digests:
        _digests[key] = digest_file(path)
    return _digests[key]


def _read_as_named(path: Path) -> None:
    match path.suffix:
        case ".json":
            json.loads(path.read_bytes())
        case ".npy":
            np.load(path, allow_pickle=False)
        case ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                for name in arrays:
                    arrays[name]  # its checksum is looked at
        case ".parquet":
            import pyarrow.parquet as pq

            pq.read_table(path)
        case ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "numpy"):
                pass
