"""A lock that lets one run at a time work in a folder; a second run waits and says for which."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from distill_tasks.core.errors import InputError

logger = logging.getLogger("potstill")

LOCK = ".lock"
"""The locked file; it holds the name of the run that has the lock."""
WAIT_MINUTES = 360.0
"""How long a run waits for another one by default: six hours, a nightly run."""
SECONDS_BETWEEN_TRIES = 1.0


@dataclass(frozen=True)
class Holder:
    """The run that has a lock, as it described itself."""

    run: str
    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"{self.run} (process {self.pid} on {self.host}, since {self.since})"


@contextmanager
def hold(
    root: Path, run: str, wait_minutes: float, tell: Callable[[str], object] = logger.warning
) -> Iterator[None]:
    """Lock a folder for one run inside the block; the lock ends with the process, however it ends.

    ``run`` describes the run to others that wait, ``tell`` hears for whom this one does. Raises
    InputError if another run still holds the lock after ``wait_minutes``.
    """
    with (root / LOCK).open("a+") as file:
        _wait(file, root, time.monotonic() + 60 * wait_minutes, tell)
        _write_holder(file, run)
        yield


def find_holder(root: Path) -> Holder | str | None:
    """Return the run that holds a folder; words for one without a name yet, None if there is none.

    The lock is shared for a moment, since the file alone does not tell whether its writer lives.
    """
    try:
        with (root / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        with (root / LOCK).open() as file:
            return _read_holder(file)
    return None


def _wait(file: IO[str], root: Path, deadline: float, tell: Callable[[str], object]) -> None:
    announced: Holder | str = ""
    while not try_lock(file):
        holder = _read_holder(file)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise InputError(
                f"Another run is working in {root}: {holder}. "
                "Wait for it, or give this one its own work_dir."
            )
        if holder != announced:
            minutes = f"{left_s / 60:.3g} minutes"
            tell(f"waiting up to {minutes} for {holder}, which works in {root}")
            announced = holder
        time.sleep(min(SECONDS_BETWEEN_TRIES, left_s))


def try_lock(file: IO[str]) -> bool:
    """Lock an open file until it is closed, and return whether nobody else had it locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(file: IO[str], run: str) -> None:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    holder = Holder(run, os.getpid(), socket.gethostname(), since)
    file.seek(0)
    file.truncate()
    file.write(json.dumps(asdict(holder)))
    file.flush()


def _read_holder(file: IO[str]) -> Holder | str:
    """Return the run that holds the lock, if it has written its name."""
    file.seek(0)
    try:
        return Holder(**json.loads(file.read()))
    except (ValueError, TypeError):
        return "one that has not written its name yet"
