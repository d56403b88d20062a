"""A lease on a registered model: one process at a time moves its aliases, on any MLflow.

MLflow has no lock and no compare-and-set, but it writes and reads one tag in one step. That is all
the bakery algorithm needs: each process draws a number higher than all it sees, and the lowest
goes first. Source: Lamport 1974, "A new solution of Dijkstra's concurrent programming problem".
"""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from distill_tasks.core.errors import PotstillError
from distill_tasks.core.processes import ProcessName
from registry.aliases import get_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

logger = logging.getLogger("potstill")

LEASE = "potstill.lease."
"""Begins the tags of a registered model that say who moves its aliases, and who waits to."""
LASTS_S = 120.0
"""Seconds after which a lease counts no more: its holder was killed on another machine."""
BETWEEN_TRIES_S = 0.1


@dataclass(frozen=True)
class Ticket:
    """The place of one process in the queue."""

    host: str
    process: int
    number: int
    """0 while its holder still looks which number comes next."""
    until: float
    """When it counts no more, in seconds since 1970."""

    @property
    def is_over(self) -> bool:
        """Whether its holder is gone: its time is up, or it ran here and its process has ended."""
        return time.time() > self.until or self.holder.is_gone

    @property
    def holder(self) -> ProcessName:
        """The process that holds it."""
        return ProcessName(self.host, self.process)


@contextmanager
def lease(client: MlflowClient, model: str) -> Iterator[None]:
    """Hold the right to move a model's aliases inside the block; others wait, and say for whom.

    A leftover of the same thread, which was interrupted, is taken over. Raises InputError if there
    is no such model, and PotstillError where another process still holds it after two minutes.
    """
    get_model(client, model)
    here = ProcessName.here()
    key = f"{LEASE}{here.host.replace('/', '.')}.{here.number}.{threading.get_ident()}"
    try:
        _write(client, model, key, number=0)
        number = 1 + max((ticket.number for ticket in _read(client, model).values()), default=0)
        _write(client, model, key, number)
        _wait(client, model, key, number)
        yield
    finally:
        client.delete_registered_model_tag(model, key)


def _wait(client: MlflowClient, model: str, key: str, number: int) -> None:
    deadline, announced = time.monotonic() + LASTS_S, False
    while ahead := _find_ahead(client, model, key, number):
        if time.monotonic() > deadline:
            raise PotstillError(
                f"{ahead} has been moving the aliases of {model} for {LASTS_S:g} s. Look after "
                "that process, or run the same command again later."
            )
        if not announced:
            logger.info("%s: waiting for %s, which moves its aliases", model, ahead)
            announced = True
        time.sleep(BETWEEN_TRIES_S)


def _find_ahead(client: MlflowClient, model: str, key: str, number: int) -> str | None:
    """Return in words whose turn comes first; None if nobody's does."""
    for other, ticket in _read(client, model).items():
        if other != key and (ticket.number == 0 or (ticket.number, other) < (number, key)):
            return ticket.holder.words
    return None


def _read(client: MlflowClient, model: str) -> dict[str, Ticket]:
    """Return the tickets that count, by the tags that hold them; the others are removed."""
    tags = get_model(client, model).tags
    tickets = {
        key: Ticket(**json.loads(text)) for key, text in tags.items() if key.startswith(LEASE)
    }
    for key in [key for key, ticket in tickets.items() if ticket.is_over]:
        client.delete_registered_model_tag(model, key)
        del tickets[key]
    return tickets


def _write(client: MlflowClient, model: str, key: str, number: int) -> None:
    here = ProcessName.here()
    ticket = Ticket(here.host, here.number, number, time.time() + LASTS_S)
    client.set_registered_model_tag(model, key, json.dumps(asdict(ticket)))
