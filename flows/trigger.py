"""Starting a run of a deployment on a Prefect server, and following it to its end."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import DeploymentStatus
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.utilities.urls import url_for

from distill_tasks.config import find_unknown_keys, parse_config, read_settings
from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError, PotstillError, did_you_mean, shortlist

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun, Worker
    from prefect.client.schemas.responses import DeploymentResponse

logger = logging.getLogger("potstill")

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_FOR_A_WORKER = 8.0
"""How long a worker that is just starting is waited for, before any run is created."""
SECONDS_BETWEEN_WORKER_CHECKS = 10.0
SECONDS_WITHOUT_SERVER = 60.0
"""How long a server that answered before may be away while a run is followed."""
MISSED_HEARTBEATS = 1.5
"""A worker is taken for dead when its last heartbeat is older than so many of its intervals."""
DEPLOY = "`prefect --no-prompt deploy --all`"


class NoWorkerError(PotstillError):
    """Nobody would carry out a run: the work pool is missing or paused, or has no worker."""


class TimedOutError(PotstillError):
    """A run did not end in time; it goes on."""


@dataclass(frozen=True)
class Deployed:
    """A deployment with its full name, FLOW/DEPLOYMENT."""

    name: str
    about: DeploymentResponse


def find_deployment(client: SyncPrefectClient, written: str) -> Deployed:
    """Return the deployment of a name, which may leave out the flow where that is clear."""
    flow, _, name = written.rpartition("/")
    asked = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
    named = _name_deployments(client, client.read_deployments(deployment_filter=asked))
    found = [one for one in named if one.name == (f"{flow}/{name}" if flow else one.name)]
    if len(found) == 1:
        return found[0]
    if found:
        meant = shortlist(sorted(one.name for one in found))
        raise InputError(f"Several deployments are called {name!r}: {meant}. Name the flow too.")
    known = sorted(one.name for one in _name_deployments(client, client.read_deployments()))
    if not known:
        raise InputError(f"The Prefect server holds no deployment. Make them with {DEPLOY}.")
    raise InputError(
        f"There is no deployment {written!r}{did_you_mean(written, known)}. "
        f"Deployed: {shortlist(known, 10)}."
    )


def _name_deployments(
    client: SyncPrefectClient, found: list[DeploymentResponse]
) -> Iterator[Deployed]:
    flows = {flow: client.read_flow(flow).name for flow in {one.flow_id for one in found}}
    return (Deployed(f"{flows[one.flow_id]}/{one.name}", one) for one in found)


def check_parameters(
    deployed: Deployed, config: Path | None, overrides: dict[str, Any]
) -> dict[str, Any]:
    """Return the parameters that a run gets beside those of its deployment.

    A configuration file that is here is sent whole, so that what was checked is what runs; the
    worker reads any other. Raises InputError for what the flow would refuse.
    """
    parameters: dict[str, Any] = {"overrides": overrides} if overrides else {}
    if config is not None:
        parameters["config"] = read_settings(config) if config.is_file() else config.as_posix()
    for name in parameters:
        if name not in (deployed.about.parameter_openapi_schema or {}).get("properties", {}):
            raise InputError(
                f"{deployed.name} takes no `{name}`: it was deployed by another version. Deploy it "
                f"again with {DEPLOY}."
            )
    if config is not None:
        _check_config(parameters["config"], str(config), overrides)
    else:
        _check_deployed_config(deployed, overrides)
    return parameters


def _check_config(config: dict[str, Any] | str, source: str, overrides: dict[str, Any]) -> None:
    if isinstance(config, dict):
        parse_config(config, source, overrides)
    else:
        logger.warning("%s is not here: the worker reads it, and checks it only then", source)


def _check_deployed_config(deployed: Deployed, overrides: dict[str, Any]) -> None:
    """Raise InputError if a deployment's own configuration, where it can be read, is refused."""
    config = deployed.about.parameters.get("config")
    if isinstance(config, dict):
        outdated = find_unknown_keys(config)
        if outdated:
            raise InputError(
                f"{deployed.name} holds a configuration of another version, whose keys are not "
                f"known by now: {shortlist(outdated)}. Change them where it is deployed from, and "
                f"deploy it again with {DEPLOY}."
            )
        parse_config(config, deployed.name, overrides)
    elif config is not None and (path := _find_folder(deployed) / str(config)).is_file():
        parse_config(read_settings(path), str(path), overrides)


def _find_folder(deployed: Deployed) -> Path:
    """Return the folder in which runs of a deployment work, as far as it says so."""
    for step in deployed.about.pull_steps or []:
        for settings in step.values():
            if isinstance(settings, dict) and "directory" in settings:
                return Path(str(settings["directory"]))
    return Path(deployed.about.path or ".")


def await_worker(client: SyncPrefectClient, deployed: Deployed) -> None:
    """Return once somebody is there to carry out a run; wait a few seconds for that at most."""
    deadline = time.monotonic() + SECONDS_FOR_A_WORKER
    while (absence := _find_absence(client, deployed.about)) is not None:
        if time.monotonic() > deadline:
            raise NoWorkerError(f"{deployed.name}: {absence}")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _find_absence(client: SyncPrefectClient, about: DeploymentResponse) -> str | None:
    """Return why nobody would carry out a run of a deployment; None if somebody would."""
    pool_name = about.work_pool_name
    if pool_name is None:  # of `flow.serve`, which asks for its runs itself
        served = about.status is DeploymentStatus.READY
        return None if served else f"it has no work pool, and nobody serves it. {DEPLOY} gives one."
    try:
        pool = client.read_work_pool(pool_name)
    except ObjectNotFound:
        create = f"`prefect work-pool create --type process {pool_name}`"
        return f"its work pool {pool_name!r} is missing. Make it with {create}."
    if pool.is_paused:
        resume = f"`prefect work-pool resume {pool_name}`"
        return f"its work pool {pool_name!r} is paused. Go on with {resume}."
    workers = client.read_workers_for_work_pool(pool_name)
    if pool.is_push_pool or pool.is_managed_pool or any(map(is_alive, workers)):
        return None
    start = f"`prefect worker start --pool {pool_name}`"
    return f"no worker asks the work pool {pool_name!r} for runs. Start one with {start}."


def is_alive(worker: Worker) -> bool:
    """Return whether a worker was heard of lately."""
    if worker.last_heartbeat_time is None:
        return False
    silent_s = (datetime.now(UTC) - worker.last_heartbeat_time).total_seconds()
    return silent_s <= MISSED_HEARTBEATS * (worker.heartbeat_interval_seconds or 30)


def start_run(client: SyncPrefectClient, deployed: Deployed, parameters: dict[str, Any]) -> FlowRun:
    """Create a run of a deployment, or raise InputError with what the server says against it."""
    try:
        return client.create_flow_run_from_deployment(deployed.about.id, parameters=parameters)
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in (400, 409, 422):
            raise
        said = error.response.json().get("detail", str(error))
        reason = " ".join(mask_credentials(str(said)).split())[:300]
        raise InputError(
            f"{deployed.name}: the server refuses these parameters: {reason}"
        ) from None


def link_run(run_id: UUID) -> str:
    """Return the address of a run's page in Prefect's UI."""
    return url_for("flow-run", obj_id=run_id) or f"flow run {run_id}"


def follow(
    client: SyncPrefectClient, deployed: Deployed, run_id: UUID, timeout_s: float | None
) -> FlowRun:
    """Log the states and lines of a run until it has ended, and return it.

    Raises TimedOutError after so many seconds, and NoWorkerError if no worker is left before the
    run has begun: it goes on, or waits, all the same.
    """
    begun = checked = time.monotonic()
    cancel = f"Cancel it with `prefect flow-run cancel {run_id}`."
    for run in _look(client, run_id):
        if run.state is not None and run.state.is_final():
            break
        now = time.monotonic()
        if timeout_s is not None and now - begun > timeout_s:
            raise TimedOutError(
                f"{deployed.name} has not ended within {timeout_s / 60:g} minutes; the run goes "
                f"on. {cancel}"
            )
        waits = run.state is not None and run.state.is_scheduled()
        if waits and now - checked > SECONDS_BETWEEN_WORKER_CHECKS:
            checked = now
            with suppress(httpx.TransportError, PrefectHTTPStatusError):
                absence = _find_absence(client, deployed.about)
                if absence is not None:
                    said = f"{deployed.name}: {absence} The run waits for it. {cancel}"
                    raise NoWorkerError(said)
    return run


def _look(client: SyncPrefectClient, run_id: UUID) -> Iterator[FlowRun]:
    """Yield a run again and again, and log what is new of it; a server may be away for a while."""
    lines, answered = _Lines(run_id), time.monotonic()
    while True:
        try:
            run = client.read_flow_run(run_id)
            lines.tell(client, run)
            answered = time.monotonic()
            yield run
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if time.monotonic() - answered > SECONDS_WITHOUT_SERVER:
                raise PotstillError(
                    f"The Prefect server does not answer any more, so the end of {run_id} is not "
                    f"known: {error}"
                ) from None
        time.sleep(SECONDS_BETWEEN_LOOKS)


class _Lines:
    """What a run has said so far: its states and its log, each told once."""

    def __init__(self, run_id: UUID) -> None:
        self._run_id = run_id
        self._state: UUID | None = None
        self._told: set[UUID] = set()
        self._since = datetime.fromtimestamp(0, UTC)

    def tell(self, client: SyncPrefectClient, run: FlowRun) -> None:
        """Log what is new; lines of other loggers than ours stay with Prefect."""
        for line in client.read_logs(self._ask()):
            if line.name == "potstill" and line.id not in self._told:
                logger.log(line.level, "%s", line.message)
            self._told.add(line.id)
            self._since = line.timestamp
        if run.state is not None and run.state.id != self._state:
            self._state = run.state.id
            said = f": {mask_credentials(run.state.message)}" if run.state.message else ""
            logger.info("%s%s", run.state.name, said)

    def _ask(self) -> LogFilter:
        return LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self._run_id]),
            timestamp=LogFilterTimestamp(after_=self._since),
        )
