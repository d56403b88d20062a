import json
import os
import subprocess
import sys
import threading
import time

import mlflow
import pytest

from distill_tasks.core.errors import InputError
from distill_tasks.core.processes import ProcessName
from registry import lease as leases
from registry.lease import LEASE, lease

ROUNDS = 6


@pytest.fixture
def client(mlflow_server, model) -> mlflow.MlflowClient:
    made = mlflow.MlflowClient(mlflow_server)
    made.create_registered_model(model)
    return made


def leave_ticket(client, model, process, seconds=60.0, host=None):
    """Leave behind what a process that died inside the block would."""
    ticket = {"host": host or ProcessName.here().host, "process": process, "number": 1}
    text = json.dumps(ticket | {"until": time.time() + seconds})
    client.set_registered_model_tag(model, f"{LEASE}another", text)


def find_dead_process():
    return int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))


def test_two_that_count_at_once_lose_nothing(client, model):
    def count():
        own = mlflow.MlflowClient(client.tracking_uri)
        for _ in range(ROUNDS):
            with lease(own, model):
                before = int(own.get_registered_model(model).tags.get("count", 0))
                own.set_registered_model_tag(model, "count", str(before + 1))

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(client.get_registered_model(model).tags) == {"count": str(2 * ROUNDS)}


def test_what_a_killed_process_left_stops_nobody(client, model):
    started = time.monotonic()
    leave_ticket(client, model, find_dead_process())
    with lease(client, model):
        leave_ticket(client, model, os.getpid(), seconds=-1, host="another")
    with lease(client, model):
        assert time.monotonic() - started < leases.LASTS_S / 2
    assert client.get_registered_model(model).tags == {}


def test_who_waits_too_long_is_told_for_whom(client, model, monkeypatch):
    monkeypatch.setattr(leases, "LASTS_S", 0.3)
    leave_ticket(client, model, 4321, host="db-1")
    with (
        pytest.raises(leases.PotstillError, match=r"^process 4321 on db-1 has been moving"),
        lease(client, model),
    ):
        pass
    assert list(client.get_registered_model(model).tags) == [f"{LEASE}another"]


def test_a_container_of_the_same_name_may_have_a_process_that_is_not_here(
    client, model, monkeypatch
):
    monkeypatch.setattr(leases, "LASTS_S", 0.3)
    host, _, space = ProcessName.here().host.partition("/")
    leave_ticket(client, model, find_dead_process(), host=f"{host}/{int(space) + 1}")
    with pytest.raises(leases.PotstillError, match=rf" on {host} has been"), lease(client, model):
        pass


def test_a_block_that_fails_gives_the_lease_back(client, model):
    with pytest.raises(ZeroDivisionError), lease(client, model):
        raise ZeroDivisionError
    assert client.get_registered_model(model).tags == {}


def test_there_is_no_lease_on_an_unknown_model(client):
    with (
        pytest.raises(InputError, match=r"^There is no registered model 'nobody'"),
        lease(client, "nobody"),
    ):
        pass
