"""What every kind of execution is: workers that call functions, and what becomes of the lost."""

from __future__ import annotations

import fcntl
import logging
import pickle
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any, TypeVar

from distill_tasks.core.errors import InputError, PotstillError, say_error
from distill_tasks.core.memory import release_memory
from distill_tasks.core.run_lock import try_lock
from distill_tasks.core.settings import Settings

logger = logging.getLogger("potstill")

TRIES = 3
"""How often a task is begun whose process, or node, was lost."""
GRACE_S = 30.0
"""How long a stopped training may take to the end of its step, to leave a checkpoint."""

T = TypeVar("T")
R = TypeVar("R")


class LostError(PotstillError):
    """The process of a task ended without an answer: killed, out of memory, or its node is gone."""


@dataclass(frozen=True)
class Outcome:
    """What a task came to in another process: a value, or the error that it failed by."""

    value: Any = None
    error: Exception | None = None
    lines: tuple[logging.LogRecord, ...] = ()
    """What it logged, where its lines could not be passed on as they came."""

    def give(self) -> Any:
        """Return the value, or raise the error; its log lines become lines of this process."""
        for line in self.lines:
            pass_on(line)
        if self.error is not None:
            raise self.error
        return self.value


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """Call a function in a worker's process, and return what it came to."""
    try:
        return Outcome(function(*arguments))
    except Exception as error:  # noqa: BLE001  # whoever waits for it decides
        error.add_note(traceback.format_exc())
        return Outcome(error=_make_portable(error))
    finally:
        release_memory()


def _make_portable(error: Exception) -> Exception:
    """Return an error that reaches another process: itself, or one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception:  # noqa: BLE001  # libraries raise errors of every kind
        return PotstillError(say_error(error))
    return error


class LineSender(QueueHandler):
    """Passes log lines on to a function, in a form that other processes can read."""

    def __init__(self, send: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(send)  # type: ignore[arg-type]  # what `enqueue` makes of it is ours
        self.send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a line over."""
        self.send(record)


def pass_on(line: logging.LogRecord) -> None:
    """Log a line of another process as if it were said here."""
    logging.getLogger(line.name).handle(line)


class Workers(ABC):
    """Call functions somewhere, several of them at once."""

    at_once: int
    """How many calls may be waited for at once, each by a thread of its own."""

    @abstractmethod
    def call(self, about: str, function: Callable[..., R], *arguments: Any) -> R:
        """Return what a function of some module returns, or raise what it raises.

        ``about`` says in the log what is done. What it makes goes into the store; arguments and
        result are references, small enough to be passed between processes.
        """


class Here(Workers):
    """Calls functions in this process, one after another."""

    at_once = 1

    def call(self, about: str, function: Callable[..., R], *arguments: Any) -> R:  # noqa: ARG002
        """Call the function."""
        return function(*arguments)


HERE = Here()


class Execution(Settings, ABC):
    """Where trainings run; nothing that comes out may depend on it."""

    @property
    def is_here(self) -> bool:
        """Whether all is done in the run's own process, one after another."""
        return False

    def start(self, tasks: int) -> AbstractContextManager[Workers]:
        """Return workers for so many tasks, which end with the block, whatever ends it."""
        return nullcontext(HERE) if self.is_here or not tasks else self.start_workers(tasks)

    @abstractmethod
    def start_workers(self, tasks: int) -> AbstractContextManager[Workers]:
        """Return workers in processes of their own."""

    def check(self, store: Path) -> None:
        """Raise InputError if the workers cannot work, or cannot share a store with this run."""


def insist(about: str, once: Callable[[], Outcome]) -> Any:
    """Return what a task gives, begun again where its process was lost.

    Raises LostError, with the last reason, if it was lost `TRIES` times.
    """
    for number in range(1, TRIES + 1):
        try:
            return once().give()
        except LostError as lost:
            if number == TRIES:
                raise LostError(f"{lost}, {TRIES} times") from None
            logger.warning("%s: %s; it is begun again", about, lost)
    raise AssertionError("unreachable")


def map_at_once(function: Callable[[T], R], inputs: Iterable[T], at_once: int) -> list[R]:
    """Return what a function makes of each input, in their order, several at once in threads.

    Each thread sees the context of this one, by which Prefect knows the run. One at a time is done
    in this thread. The first error, or an interruption, ends the waiting for all.
    """
    if at_once == 1:
        return [function(one) for one in inputs]
    threads = ThreadPoolExecutor(at_once)
    try:
        futures = [threads.submit(copy_context().run, function, one) for one in inputs]
        for future in as_completed(futures):
            future.result()
        return [future.result() for future in futures]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def check_locks(store: Path) -> None:
    """Raise InputError if the file system of a store does not keep the locks of its processes."""
    with tempfile.NamedTemporaryFile(dir=store, prefix=".locked-") as first:
        try:
            fcntl.flock(first, fcntl.LOCK_EX)
            kept = not can_lock(Path(first.name))
        except OSError as error:
            raise InputError(_refuse_locks(store, f": {error.strerror}")) from None
    if not kept:
        raise InputError(_refuse_locks(store, ""))


def can_lock(path: Path) -> bool:
    """Return whether nobody else holds a file locked."""
    with path.open("a") as file:
        return try_lock(file)


def _refuse_locks(store: Path, reason: str) -> str:
    return (
        f"work_dir {store} lies where files cannot be locked{reason}, so that processes cannot "
        "share it. Name a folder of another file system, or take execution out."
    )
