"""What tests have workers do: functions that another process imports."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

from distill_tasks.core.errors import InputError

logger = logging.getLogger("potstill")


def say_where(folder: Path) -> dict[str, str]:
    """Log a line, print one, and return where this runs."""
    print("not an answer")
    logger.info("working in %s", folder)
    return {
        "process": str(os.getpid()),
        "session": str(os.getsid(0)),
        "threads": os.environ["OMP_NUM_THREADS"],
        "folder": str(Path.cwd()),
    }


def refuse(reason: str) -> None:
    """Fail by an error of the user's input."""
    raise InputError(reason)


class UnsendableError(Exception):
    """An error of some library that does not survive being pickled."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def fail_oddly() -> None:
    """Fail by an error that another process cannot read."""
    raise UnsendableError("library", "went wrong")


def die(folder: Path, times: int) -> int:
    """Kill this process, so many times by what lies in a folder; then return how often it began."""
    began = folder / f"began-{os.getpid()}-{time.monotonic_ns()}"
    began.touch()
    count = len(list(folder.glob("began-*")))
    if count <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def stop_well(folder: Path) -> None:
    """Work until SIGTERM or SIGINT, and leave a checkpoint then, as a training does."""

    def leave(number: int, _: object) -> None:
        (folder / "checkpoint").write_text(signal.Signals(number).name)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    (folder / "process").write_text(str(os.getpid()))
    for _ in range(2400):
        time.sleep(0.05)
