"""A process that works for a run, started by ``python -m``: one task after another, as they come.

It reads tasks from standard input and writes log lines and outcomes to what was its standard
output, each pickled by the process at the other end, which is the run's own.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import sys
import threading
from typing import Any

from distill_tasks.core.live import terminal
from distill_tasks.core.process import set_up_process
from distill_tasks.execution.base import LineSender, attempt


def main() -> None:
    """Do what is read until there is no more."""
    set_up_process()
    tasks, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    terminal.file = io.StringIO()  # the run's own process shows how far things are
    lock = threading.Lock()

    def send(found: Any) -> None:
        with lock:
            pickle.dump(found, answers)
            answers.flush()

    logger = logging.getLogger("potstill")
    logger.addHandler(LineSender(send))
    logger.setLevel(int(sys.argv[1]))
    logger.propagate = False
    while True:
        try:
            function, arguments = pickle.load(tasks)  # noqa: S301  # from the run's own process
        except EOFError:
            return
        send(attempt(function, arguments))


if __name__ == "__main__":
    main()
