"""The store: folders named by digest, each complete once its manifest.json exists."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from distill_tasks.errors import InputError

MANIFEST = "manifest.json"

T = TypeVar("T")


class Store:
    """Keeps what a run makes under ``root/kind/digest`` so that nothing is made twice."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, kind: str, digest: str) -> Path:
        """Return the folder of one thing, complete or not."""
        return self.root / kind / digest

    def manifest(self, kind: str, digest: str) -> dict[str, Any] | None:
        """Return the manifest of a complete folder, or None where there is none."""
        path = self.folder(kind, digest) / MANIFEST
        return json.loads(path.read_text()) if path.is_file() else None

    def draft(self, kind: str, digest: str) -> Path:
        """Return the draft of one thing, in which `build` goes on."""
        draft = self.folder(kind, f"{digest}.partial")
        draft.mkdir(parents=True, exist_ok=True)
        return draft

    @contextmanager
    def build(self, kind: str, digest: str, manifest: dict[str, Any]) -> Iterator[Path]:
        """Yield a draft folder that becomes the real one, by rename, when the block ends well.

        The draft of a killed run is found again, so a checkpoint in it can be continued. The
        manifest may be filled inside the block; it is written last.
        """
        final, draft = self.folder(kind, digest), self.draft(kind, digest)
        yield draft
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=2))
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)

    def keep(self, kind: str, digest: str, manifest: dict[str, Any]) -> None:
        """Keep a thing that is its manifest alone."""
        with self.build(kind, digest, manifest):
            pass

    def remember(
        self, kind: str, digest: str, shape: type[T], make: Callable[[], T]
    ) -> tuple[T, bool]:
        """Return a finding of some dataclass, made where it is not kept, and whether it was."""
        adapter = TypeAdapter(shape)
        saved = self.manifest(kind, digest)
        if saved is not None:
            return adapter.validate_python(saved), True
        found = make()
        self.keep(kind, digest, adapter.dump_python(found, mode="json"))
        return found, False

    def check_writable(self) -> None:
        """Raise InputError if the root cannot be made or written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"work_dir {self.root} cannot be written: {error.strerror}. "
                "Name a folder that this user may write."
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one run; the lock goes with the process, even by kill -9.

        Raises InputError while another run works in the same folder.
        """
        self.check_writable()
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"Another run is working in {self.root}. "
                    "Wait for it, or give this one its own work_dir."
                ) from None
            yield
