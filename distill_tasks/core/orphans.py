"""No process that this one starts is left behind, even where this one ends by kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

WATCHING = """
import os, signal, sys, time
parent, child = map(int, sys.argv[1:])
def send(number):
    try:
        os.kill(child, number)
    except ProcessLookupError:
        sys.exit()
while os.getppid() == parent:
    time.sleep(0.5)
send(signal.SIGTERM)
for _ in range(50):
    time.sleep(0.1)
    send(0)
send(signal.SIGKILL)
"""
"""Ends a process once the one that started both is gone: by SIGTERM, 5 s later by SIGKILL."""


class Watch:
    """Sees to it that a process ends with this one, or with the block that it is used in.

    It watches from a Python of its own, which costs the process nothing, unlike a thread in it. And
    unlike Linux's PR_SET_PDEATHSIG it does not take the end of a thread for that of its process.
    """

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self.process = process
        self.watching = subprocess.Popen(  # noqa: S603  # our own code
            [sys.executable, "-I", "-S", "-c", WATCHING, str(os.getpid()), str(process.pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C reaches the others alone
        )

    def end(self) -> None:
        """End the process if it goes on, then the watch."""
        for process in (self.process, self.watching):
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
