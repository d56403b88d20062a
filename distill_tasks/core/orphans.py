"""Child processes end with this process, even if it is ended by kill -9."""

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
"""A script that ends a process once their common parent is gone: SIGTERM, SIGKILL 5 s later."""


class Watch:
    """Ends a child process when this process ends, or when the `with` block does.

    It watches from a separate Python process, so that it needs no thread in the child. Unlike
    Linux's PR_SET_PDEATHSIG, it does not react when only the thread that started the child ends.
    """

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self.process = process
        self.watching = subprocess.Popen(  # noqa: S603  # our own code
            [sys.executable, "-I", "-S", "-c", WATCHING, str(os.getpid()), str(process.pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal must not end it first
        )

    def leave(self) -> None:
        """Let the process outlive this one."""
        self.watching.kill()
        self.watching.wait()

    def end(self) -> None:
        """End the process if it still runs, then the watching one."""
        self.process.kill()
        self.process.wait()
        self.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
