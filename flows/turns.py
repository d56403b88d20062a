"""One distillation of a registered model at a time, wherever its runs work: a limit in Prefect.

A run holds the only slot of the limit by a lease that it renews. If its process dies, the next run
on the same host frees the slot at once; elsewhere the lease lapses within a minute and a quarter.
A Prefect server keeps leases in memory, if not told otherwise, and slots in its database: a restart
loses the one without the other. A slot that no living run holds is freed after a minute and a half.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING
from uuid import UUID

from httpx import HTTPError, HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
)
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from distill_tasks.core.errors import InputError, say_error
from distill_tasks.stages.flow_run import current_flow_run
from flows.flow_runs import (
    LEASE,
    attempt,
    crash_lost_runs,
    label_run,
    read_running,
    say_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("potstill")

LIMIT = "potstill.limit"
"""The label of a flow run with the limit that it holds the slot of."""
UNTIL = "potstill.lease_until"
"""The label of a flow run that says until when its lease lasts, in seconds since 1970."""
LEASE_S = 60.0
"""The shortest lease that Prefect grants."""
RENEWED_EVERY_S = 20.0
FREED_AFTER_S = 90.0
"""A slot that no run has held for so long is free: every lease on it has lapsed by then."""
SECONDS_BETWEEN_TRIES = 2.0


class Limit:
    """The limit of one registered model, as one flow run sees it."""

    def __init__(self, client: SyncPrefectClient, model: str, flow_run: str) -> None:
        self.client = client
        self.name = f"potstill {re.sub('[/%&<>]', '_', model)}"  # what Prefect's names may not have
        self.flow_run = flow_run

    def make(self) -> None:
        """Make the limit if it is missing; one that is there stays as people have set it."""
        try:
            self.client.read_global_concurrency_limit_by_name(self.name)
        except ObjectNotFound:
            asked = GlobalConcurrencyLimitCreate(name=self.name, limit=1)
            with suppress(ObjectAlreadyExists):  # another run made it meanwhile
                self.client.create_global_concurrency_limit(asked)

    def take(self) -> UUID | None:
        """Return a lease on the slot, or None if another run has it."""
        holder = ConcurrencyLeaseHolder(type="flow_run", id=UUID(self.flow_run))
        try:
            answer = self.client.increment_concurrency_slots_with_lease(
                [self.name], 1, "concurrency", LEASE_S, holder=holder
            )
        except HTTPStatusError as error:
            if error.response.status_code == codes.LOCKED:
                return None
            raise
        lease = UUID(answer.json()["lease_id"])
        label_run(self.flow_run, {LIMIT: self.name, LEASE: str(lease)} | _last_until())
        return lease

    def find_holder(self) -> str | None:
        """Return in words which run holds the slot; None if none shows that it does."""
        for run in read_running(self.client):
            until = float(run.labels.get(UNTIL, 0))
            holds = run.labels.get(LIMIT) == self.name and until > time.time()
            if holds and str(run.id) != self.flow_run:
                return say_run(run)
        return None

    def free(self) -> None:
        """Free the slot, whoever had it."""
        logger.warning("Prefect: nobody holds the limit %r any more; it is freed", self.name)
        self.client.update_global_concurrency_limit(
            self.name, GlobalConcurrencyLimitUpdate(active_slots=0)
        )


@contextmanager
def turn(model: str, wait_minutes: float, tell: Callable[[str], object]) -> Iterator[None]:
    """Hold the limit of a registered model inside the block, if a Prefect server is shared.

    ``tell`` hears for whom it waits. Raises InputError if it still does after so many minutes.
    Prefect's temporary server is nobody else's: there the lock of the store has to do, as it has
    where the server gives no answer.
    """
    mine = current_flow_run()
    if mine is None or not PREFECT_API_URL.value():
        yield
        return
    with get_client(sync_client=True) as client:
        limit, lease = Limit(client, model, mine), None
        try:
            limit.make()
            lease = _wait(limit, model, wait_minutes, tell)
        except HTTPError as error:
            logger.warning("Prefect gives no turn on %s: %s", model, say_error(error))
    if lease is None:
        yield
        return
    with _kept(lease, mine):
        yield


def _wait(
    limit: Limit, model: str, wait_minutes: float, tell: Callable[[str], object]
) -> UUID | None:
    """Return a lease once there is one."""
    deadline = time.monotonic() + 60 * wait_minutes
    told, seen = "", time.monotonic()
    while (lease := limit.take()) is None:
        holder, now = limit.find_holder(), time.monotonic()
        seen = seen if holder is None else now
        who = holder or "a run that is gone, or has not said its name yet"
        if now >= deadline:
            raise InputError(
                f"Another run distils {model}: {who}. Wait for it, or raise --wait-minutes."
            )
        if who != told:
            minutes = round((deadline - now) / 60, 1)
            tell(f"waiting up to {minutes:g} minutes for {who}: it distils {model}")
            told = who
        if now - seen > FREED_AFTER_S:
            limit.free()
        time.sleep(min(SECONDS_BETWEEN_TRIES, deadline - now))
        attempt("mark lost runs", crash_lost_runs)
    return lease


@contextmanager
def _kept(lease: UUID, flow_run: str) -> Iterator[None]:
    """Renew a lease until the block ends, then give it back."""
    over = threading.Event()
    thread = threading.Thread(
        target=copy_context().run, args=(_renew, lease, flow_run, over), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)
        attempt("free a limit", lambda: _release(lease, flow_run))


def _renew(lease: UUID, flow_run: str, over: threading.Event) -> None:
    """Renew a lease again and again; where Prefect is away, the work goes on without it."""
    renewed = True
    while not over.wait(RENEWED_EVERY_S):
        try:
            with get_client(sync_client=True) as client:
                client.renew_concurrency_lease(lease, LEASE_S)
        except Exception as error:  # noqa: BLE001  # httpx's, Prefect's own
            if renewed:
                logger.warning("Prefect does not renew the run's turn: %s", say_error(error))
            renewed = False
        else:
            renewed = True
            label_run(flow_run, _last_until())


def _release(lease: UUID, flow_run: str) -> None:
    with get_client(sync_client=True) as client:
        client.release_concurrency_slots_with_lease(lease)
    label_run(flow_run, {UNTIL: "0"})


def _last_until() -> dict[str, str]:
    return {UNTIL: str(time.time() + LEASE_S)}
