"""What Prefect knows of the last flow run."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort


def last_flow_run() -> FlowRun:
    """Return the flow run that started last."""
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def task_states(flow_run: FlowRun) -> list[tuple[str, str]]:
    """Return the name and the state of every task of a flow run, in the order they started."""
    with get_client(sync_client=True) as client:
        one = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run.id]))
        runs = client.read_task_runs(task_run_filter=one)
    runs.sort(key=lambda run: run.start_time)
    return [(run.name, run.state_name) for run in runs]


def state_of(kind: str) -> str:
    """Return the state of the only task of the last flow run whose name begins like this."""
    (state,) = {s for name, s in task_states(last_flow_run()) if name.startswith(kind)}
    return state


def progress_artifacts() -> dict[str, dict[str, Any]]:
    """Return the progress artifacts of the last flow run by their keys, each key standing once."""
    with get_client(sync_client=True) as client:
        kept = client.request("POST", "/artifacts/filter", json={"sort": "CREATED_DESC"}).json()
    last = kept[0]["flow_run_id"] if kept else None
    mine = [item for item in kept if item["flow_run_id"] == last and item["type"] == "progress"]
    found = {item["key"]: item for item in mine}
    assert len(found) == len(mine)
    return found
