"""Digests: the names under which rows, teachers, students and runs are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

LENGTH = 16
"""Hexadecimal characters of every digest: 64 bits."""


def digest(*parts: object) -> str:
    """Return the digest of JSON-serialisable parts, the same in every process."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]


def digest_texts(texts: Iterable[str]) -> list[str]:
    """Return one digest for each text; equal texts have equal digests."""
    return [hashlib.sha256(text.encode()).hexdigest()[:LENGTH] for text in texts]


def digest_file(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:LENGTH]


def digest_folder(folder: Path) -> str:
    """Return the digest of a folder: the relative path and bytes of every file in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([[path.relative_to(folder).as_posix(), digest_file(path)] for path in files])
