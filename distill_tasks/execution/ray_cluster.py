"""Execution on a cluster: each student is one Ray task, on whatever node has room for it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from distill_tasks.core.errors import InputError, say_reason
from distill_tasks.core.process import set_up_process
from distill_tasks.execution.base import (
    GRACE_S,
    Execution,
    LineSender,
    LostError,
    Outcome,
    Workers,
    attempt,
    insist,
)
from distill_tasks.execution.ray_check import check_cluster
from distill_tasks.execution.ray_connection import connect

if TYPE_CHECKING:
    from ray import ObjectRef

logger = logging.getLogger("potstill")

MOST_AT_ONCE = 64
"""Tasks submitted at once; those that no node has room for wait in Ray's queue."""
SECONDS_BETWEEN_LOOKS = 0.5

R = TypeVar("R")


class RayExecution(Execution):
    """Students train on a Ray cluster (extra `ray`)."""

    kind: Literal["ray"] = Field("ray", description="On a Ray cluster (extra `ray`).")
    address: str | None = Field(
        None,
        pattern=r"^(auto|[\w.-]+:\d+)$",
        description="Address of the cluster, host:port, or `auto` for the one that this machine "
        "is a node of; when absent, a Ray of the run's own on this machine. The store must lie "
        "where all nodes find it.",
    )
    num_cpus: int = Field(
        1, ge=1, le=1024, description="Cores that a student trains on, and that Ray keeps for it."
    )
    num_gpus: float = Field(
        0, ge=0, le=64, description="GPUs that Ray keeps for a student; 0.5 has two share one."
    )

    def check(self, store: Path) -> None:
        """Check that Ray is there, its nodes are as this one is, and that they share the store."""
        if find_spec("ray") is None:
            raise InputError(
                "execution.kind is ray, which is not installed. "
                "`pip install 'potstill[ray]'`, or take execution out."
            )
        if self.address is not None:
            check_cluster(self.address, {"CPU": self.num_cpus, "GPU": self.num_gpus}, store)

    @contextmanager
    def start_workers(self, tasks: int) -> Iterator[Workers]:
        """Connect to the cluster inside the block, or start one that ends with it."""
        with connect(self.address):
            workers = RayWorkers(self, min(tasks, MOST_AT_ONCE))
            try:
                yield workers
            finally:
                workers.stop()


class RayWorkers(Workers):
    """Tasks of a Ray cluster that this process is connected to."""

    def __init__(self, execution: RayExecution, at_once: int) -> None:
        import ray

        self.at_once = at_once
        needs = {"num_cpus": execution.num_cpus, "num_gpus": execution.num_gpus}
        remote: Any = ray.remote  # its types count arguments
        self._remote = remote(max_retries=0, **needs)(work)
        self._running: set[ObjectRef[Outcome]] = set()
        self._stopped = threading.Event()

    def call(self, about: str, function: Callable[..., R], *arguments: Any) -> R:
        """Have the cluster call the function, again on another node where one was lost."""
        where = str(Path.cwd()), logger.getEffectiveLevel()

        def once() -> Outcome:
            return self._collect(self._remote.remote(where, function, arguments))

        result: R = insist(about, once)
        return result

    def stop(self) -> None:
        """Stop what still runs; a training first comes to the end of its step."""
        import ray

        self._stopped.set()
        left = list(self._running)
        for task in left:
            with suppress(ray.exceptions.RayError):
                ray.cancel(task)
        if left:
            ray.wait(left, num_returns=len(left), timeout=GRACE_S)

    def _collect(self, task: ObjectRef[Outcome]) -> Outcome:
        import ray

        self._running.add(task)
        try:
            while not ray.wait([task], timeout=SECONDS_BETWEEN_LOOKS)[0]:
                if self._stopped.is_set():
                    raise KeyboardInterrupt
            found: Outcome = ray.get(task)
            return found
        except ray.exceptions.RayTaskError as error:  # before or after our function
            reason = str(error).strip().splitlines()[-1]  # below the traceback of the node
            raise InputError(
                f"A node of the cluster cannot do what it is sent: {reason}. "
                "Install the same potstill on all nodes; `potstill check` compares them."
            ) from None
        except ray.exceptions.RayError as error:
            if self._stopped.is_set():  # so that a stopped task crashed, and did not fail
                raise KeyboardInterrupt from None
            raise LostError(f"its process was lost: {say_reason(error)}") from None
        finally:
            self._running.discard(task)


def work(
    where: tuple[str, int], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Outcome:
    """Call a function on a node, in the folder that the run works in, and keep its log lines."""
    folder, level = where
    set_up_process()
    with suppress(OSError):  # paths may all be whole
        os.chdir(folder)
    lines: list[logging.LogRecord] = []
    ours, sender = logging.getLogger("potstill"), LineSender(lines.append)
    ours.addHandler(sender)
    ours.setLevel(level)
    try:
        found = attempt(function, arguments)
    finally:
        ours.removeHandler(sender)
    return Outcome(found.value, found.error, tuple(lines))
