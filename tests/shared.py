"""What is made once for all workers of a test run, whichever of them needs it first."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

Make = Callable[[Path], object]
"""Fills an empty folder."""
Once = Callable[[str, Make], Path]
"""Returns the folder of a name, filled by the first who asks for it."""


def make_once(folder: Path, make: Make) -> Path:
    """Return a folder that the first who asks for it fills, while the others wait.

    It holds nothing of another test run, so it is never stale. One that could not be filled is
    tried again by the next who asks.
    """
    whole = folder / ".whole"
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder
