"""Training one model in several processes, each with one GPU and its share of every batch.

accelerate finds the processes by environment variables; those besides the first one run this
module by ``python -m``.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cloudpickle
import torch
from accelerate.state import AcceleratorState, GradientState

from distill_tasks.core.environment import variables
from distill_tasks.core.errors import PotstillError
from distill_tasks.core.orphans import Watch

logger = logging.getLogger("potstill")

Barrier = Callable[[], None]
Made = TypeVar("Made")

LONGEST_WAIT_S = 300
"""How long a process waits for the others in a step, in case one of them has failed."""


def count_ranks(gpus: int, batch_rows: int) -> int:
    """Return the most processes, one for each GPU, that can share a batch evenly."""
    return max(ranks for ranks in range(1, max(1, gpus) + 1) if batch_rows % ranks == 0)


def work_together(ranks: int, work: Callable[[Barrier], Made]) -> Made:
    """Do some work in several processes, this one being the first, and return its result here.

    The work is given a function to call when it is about to synchronise with the other processes.
    The others receive the work by cloudpickle and end with it. Raises PotstillError if one fails
    before that call.
    """
    if ranks == 1:
        return work(lambda: None)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_find_port())}
    shared |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    places = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    others: list[_Other] = []

    def barrier() -> None:
        for other in others:
            other.barrier()

    with tempfile.TemporaryDirectory() as folder, variables(places[0]):
        sent = Path(folder, "work")
        sent.write_bytes(cloudpickle.dumps(work))
        try:
            others += (_Other(place, sent) for place in places[1:])
            _forget_state()
            return work(barrier)
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            _forget_state()
            for other in others:
                other.end()


def stop_anywhere(stop: bool, device: torch.device) -> bool:
    """Return whether this process, or another that trains with it, received a stop request."""
    if not torch.distributed.is_initialized():
        return stop
    count = torch.tensor(int(stop), device=device)
    torch.distributed.all_reduce(count)
    return bool(count)


class _Other:
    """Another process; its output is kept in a file, since the terminal belongs to the first."""

    def __init__(self, place: dict[str, str], sent: Path) -> None:
        self.log = sent.with_name(f"log of {place['RANK']}")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603  # our own code
                [sys.executable, "-m", __name__, sent],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | place,
            )
        self.watch = Watch(self.process)

    def barrier(self) -> None:
        """Wait until it is about to synchronise; raise PotstillError if it ended before."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self.process.wait()
            raise PotstillError(f"Another process of the training failed: {self._reason()}")

    def end(self) -> None:
        """End the process, and log why it failed if it did."""
        if self.process.poll():
            logger.warning("train: another process failed: %s", self._reason())
        self.watch.end()
        self.process.communicate()

    def _reason(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.returncode}"


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _forget_state() -> None:
    """Make accelerate read the environment variables again."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def main() -> None:
    """Do the work that the first process sends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first one decides
    work = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301  # by our own parent
    work(lambda: print("met", flush=True))


if __name__ == "__main__":
    main()
