import time
from uuid import UUID

import pytest
from prefect import flow, get_client

from distill_tasks.stages.flow_run import announce, current_flow_run


def read_events(name):
    """Return the events of a name that the server has heard, once there are any."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with get_client(sync_client=True) as client:
            asked = {"filter": {"event": {"name": [name]}}}
            found = client._client.post("/events/filter", json=asked).json()["events"]
        if found:
            return found
        time.sleep(0.2)
    return []


def test_outside_of_a_flow_there_is_no_flow_run():
    assert current_flow_run() is None


@pytest.mark.usefixtures("prefect_server")
def test_an_event_names_the_model_as_its_resource():
    @flow
    def promote():
        announce("potstill.champion.promoted", "two words", {"version": 3})
        return current_flow_run()

    run = promote()
    (event,) = read_events("potstill.champion.promoted")
    assert UUID(run)
    assert event["resource"]["prefect.resource.id"] == "potstill.model.two words"
    assert event["payload"] == {"version": 3}
    assert f"prefect.flow-run.{run}" in {one["prefect.resource.id"] for one in event["related"]}
