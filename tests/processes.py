"""Whether processes are there that are no children of the one that asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def is_there(process: int | str) -> bool:
    """Return whether a process is alive."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_until(happened: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
