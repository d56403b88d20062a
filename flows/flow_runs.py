"""What Prefect is told of flow runs: whose each one is, whom it waits for, which ones are lost."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed, Running

from distill_tasks.core.errors import say_error
from distill_tasks.core.processes import ProcessName
from distill_tasks.stages.flow_run import current_flow_run
from distill_tasks.tracking.interrupted import KILLED
from flows.prefect_lines import shorten_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import State

logger = logging.getLogger("potstill")

FLOWS = ("distill", "label", "promote")
WORK = "potstill.work"
"""The label of a flow run that says in words what it does."""
PROCESS = "potstill.process"
"""The label of a flow run with the process that works on it."""
LEASE = "potstill.lease"
"""The label of a flow run with its lease on a concurrency limit."""
WAITING = "Waiting"
"""The name of the state of a run that waits for another one; its type is Running."""
GONE = f"{KILLED}; what it had done is kept"


def begin_run(work: str) -> None:
    """Say on the present flow run which process does what, and mark runs of dead ones as crashed.

    Only those are marked whose process ran on this host and is gone; the others are left to
    Prefect's own heartbeat. What Prefect does not take is logged, and the work goes on.
    """
    shorten_lines()
    mine = current_flow_run()
    if mine is None:
        return
    label_run(mine, {WORK: work, PROCESS: str(ProcessName.here())})
    attempt("mark lost runs", crash_lost_runs)


def label_run(flow_run: str, labels: dict[str, str]) -> None:
    """Give a flow run labels."""
    with get_client(sync_client=True) as client:
        attempt("label a run", lambda: client.update_flow_run_labels(UUID(flow_run), {**labels}))


def crash_lost_runs() -> None:
    """Mark the flow runs whose process is surely gone as crashed, and free what they held."""
    with get_client(sync_client=True) as client:
        for run in read_running(client):
            process = find_process(run)
            if process is None or not process.is_gone:
                continue
            message = f"{process.words} {GONE}"
            logger.warning("Prefect: flow run %s is marked as crashed: %s", run.name, message)
            client.set_flow_run_state(run.id, Crashed(message=message))
            if lease := run.labels.get(LEASE):
                client.release_concurrency_slots_with_lease(UUID(str(lease)))


def read_running(client: SyncPrefectClient) -> list[FlowRun]:
    """Return the flow runs of Potstill that are running or waiting, the newest first."""
    running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[*FLOWS])),
        flow_run_filter=FlowRunFilter(state=running),
    )


def find_process(run: FlowRun) -> ProcessName | None:
    """Return the process that works on a flow run, where it says so."""
    return ProcessName.parse(str(run.labels.get(PROCESS, "")))


def say_run(run: FlowRun) -> str:
    """Return a flow run in words: what it does, where, since when."""
    process, since = find_process(run), run.start_time
    where = process.words if process else "a process without a name"
    when = f", since {since:%Y-%m-%d %H:%M:%S UTC}" if since else ""
    return f"{run.labels.get(WORK, run.name)} ({where}{when})"


class Wait:
    """Shows in the log, and in the state of the flow run, whom a run waits for."""

    def __init__(self) -> None:
        self._shown = False

    def tell(self, words: str) -> None:
        """Say in a line for whom."""
        logger.warning("%s", words)
        _show(Running(name=WAITING, message=words))
        self._shown = True

    def end(self) -> None:
        """Say that the run waits no longer, if it ever did."""
        if self._shown:
            _show(Running())
            self._shown = False


def _show(state: State[None]) -> None:
    mine = current_flow_run()
    if mine is None:
        return
    with get_client(sync_client=True) as client:
        attempt("show a state", lambda: client.set_flow_run_state(UUID(mine), state))


def say_no_prefect(error: BaseException) -> str | None:
    """Return one line for the error of a Prefect server that did not answer, None for others."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, HTTPError) and _is_of_prefect(found):
            return (
                f"Prefect gave up: {say_error(found)}. Look after that server; the same command "
                "then goes on from here."
            )
        found = found.__cause__ or found.__context__
    return None


def _is_of_prefect(error: HTTPError) -> bool:
    api = PREFECT_API_URL.value()
    with suppress(RuntimeError):  # it is of no request
        return bool(api) and str(error.request.url).startswith(str(api))
    return False


def attempt(what: str, work: Callable[[], object]) -> None:
    """Ask something of Prefect that no run hangs on; where it fails, the log says so."""
    try:
        work()
    except Exception as error:  # noqa: BLE001  # httpx's, pydantic's, Prefect's own
        logger.warning("Prefect could not %s: %s", what, say_error(error))
