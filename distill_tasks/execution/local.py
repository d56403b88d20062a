"""Execution on this machine: in the run's own process, or in several beside it."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from distill_tasks.core.orphans import Watch
from distill_tasks.execution.base import (
    GRACE_S,
    Execution,
    LostError,
    Outcome,
    Workers,
    check_locks,
    insist,
    pass_on,
)

logger = logging.getLogger("potstill")

WORKER = "distill_tasks.execution.worker"
R = TypeVar("R")


class LocalExecution(Execution):
    """Students train on this machine."""

    kind: Literal["local"] = Field("local", description="On this machine.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Students that train at once, each in a process of its own with its share of "
        "the cores; 1 trains them one after another in the run's own process, on all cores.",
    )

    def check(self, store: Path) -> None:
        """Check that processes can lock the store against each other."""
        if self.workers > 1:
            check_locks(store)

    @property
    def is_here(self) -> bool:
        """Whether there is one worker, which is the run's own process."""
        return self.workers == 1

    @contextmanager
    def start_workers(self, tasks: int) -> Iterator[Workers]:
        """Return the processes, each of which starts when it is first needed."""
        workers = LocalProcesses(min(self.workers, tasks), among=self.workers)
        try:
            yield workers
        finally:
            workers.stop()


class LocalProcesses(Workers):
    """Processes of this machine that end with this one, even if it is ended by kill -9."""

    def __init__(self, at_once: int, among: int) -> None:
        self.at_once = at_once
        self._seats = [_Seat(share_machine(n, among, os.environ)) for n in range(at_once)]
        self._free: queue.SimpleQueue[_Seat] = queue.SimpleQueue()
        for seat in self._seats:
            self._free.put(seat)
        self._stopped = False

    def call(self, about: str, function: Callable[..., R], *arguments: Any) -> R:
        """Call the function in a process that has nothing else to do."""
        result: R = insist(about, lambda: self._ask((function, arguments)))
        return result

    def stop(self) -> None:
        """End all processes; one that trains first comes to the end of its step."""
        self._stopped = True
        deadline = time.monotonic() + GRACE_S
        try:
            for seat in self._seats:
                seat.ask_to_stop()
            for seat in self._seats:
                seat.wait(deadline)
        finally:
            for seat in self._seats:
                seat.end()

    def _ask(self, task: tuple[Any, ...]) -> Outcome:
        seat = self._free.get()
        try:
            if self._stopped:
                raise LostError("the run was stopped")
            return seat.ask(task)
        except LostError:
            if self._stopped:  # so that a stopped task is one that crashed, not one that failed
                raise KeyboardInterrupt from None
            raise
        finally:
            self._free.put(seat)


class _Seat:
    """The place of one process, which starts when it is needed, and again if it was lost."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: Watch | None = None

    def ask(self, task: tuple[Any, ...]) -> Outcome:
        """Have the process do a task, and log what it logs meanwhile.

        Raises LostError if it ends without an answer.
        """
        process = self._process or self._begin()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(pickle.dumps(task))
            process.stdin.flush()
            while True:
                found = pickle.load(process.stdout)  # noqa: S301  # from a process of our own
                if isinstance(found, Outcome):
                    return found
                pass_on(found)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            reason = say_end(process.wait())
            self.end()
            raise LostError(f"its process {reason}") from None

    def ask_to_stop(self) -> None:
        """Tell the process to end, at its next step if it trains."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until the process has ended, but not for ever."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0, deadline - time.monotonic()))

    def end(self) -> None:
        """End the process at once."""
        process, watch = self._process, self._watch
        self._process = self._watch = None
        if process is not None and watch is not None:
            watch.end()
            with contextlib.suppress(OSError), process:  # which closes its pipes
                pass

    def _begin(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603  # our own code
            [sys.executable, "-P", "-m", WORKER, str(logger.getEffectiveLevel())],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal must not stop it twice
        )
        self._process, self._watch = process, Watch(process)
        return process


def say_end(code: int) -> str:
    """Return how a process ended, from its exit code."""
    if code != -signal.SIGKILL:
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"ended with {ended}"
    return "was killed (SIGKILL), as the system does when memory runs out"


def share_machine(number: int, among: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of one of several processes: its share of the cores, one GPU each.

    What the user has set stays. Modules are found where this process finds them.
    """
    path = os.pathsep.join(name or str(Path.cwd()) for name in sys.path)
    threads = max(1, len(os.sched_getaffinity(0)) // among)
    shared = {"OMP_NUM_THREADS": str(threads), **environment, "PYTHONPATH": path}
    gpus = _list_gpus(environment)
    if gpus:
        shared["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return shared


def _list_gpus(environment: Mapping[str, str]) -> list[str]:
    import torch

    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]
