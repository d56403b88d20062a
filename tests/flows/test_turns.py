"""One distillation of a model at a time: real flow runs on a real Prefect server."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.context import get_settings_context
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_states import last_flow_run

from distill_tasks.core.errors import InputError
from flows import turns
from flows.flow_runs import Wait, begin_run, say_no_prefect
from flows.turns import turn

pytestmark = pytest.mark.usefixtures("prefect_server")

ROOT = Path(__file__).parents[2]
HOLDING = """
import time
from prefect import flow
from flows.flow_runs import begin_run
from flows.turns import turn

@flow(name="distill", flow_run_name="holding")
def hold():
    begin_run("distill animals")
    with turn("animals", 0, print):
        print("held", flush=True)
        time.sleep(60)

hold()
"""

held, over = threading.Event(), threading.Event()


@flow(name="distill")
def take_turn(model, wait_minutes=1.0, long=False):
    """Take a turn as a distillation does; a long one is held until it is over."""
    wait = Wait()
    begin_run(f"distill {model}")
    with turn(model, wait_minutes, wait.tell):
        wait.end()
        if long:
            held.set()
            assert over.wait(60)


@pytest.fixture
def quick_looks(monkeypatch):
    monkeypatch.setattr(turns, "SECONDS_BETWEEN_TRIES", 0.1)


def limit_of(model):
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(f"potstill {model}")


@pytest.mark.usefixtures("quick_looks")
def test_a_second_run_waits_and_its_state_says_for_whom():
    with ExitStack() as at_the_end:
        at_the_end.callback(over.set)
        first = threading.Thread(target=take_turn, args=("birds", 1.0, True))
        first.start()
        assert held.wait(60)
        second = threading.Thread(target=take_turn, args=("birds",))
        second.start()
        deadline = time.monotonic() + 30
        while (waiting := last_flow_run()).state.name != "Waiting":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert waiting.state.is_running()
        said = waiting.state.message
        assert said.startswith("waiting up to 1 minutes for distill birds (process ")
        assert said.endswith("UTC): it distils birds")
        with pytest.raises(InputError, match=r"Another run distils birds: distill birds \(process"):
            take_turn("birds", wait_minutes=0)
        take_turn("fish", wait_minutes=0)  # another model waits for nobody
    for thread in (first, second):
        thread.join(60)
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(waiting.id).state.is_completed()
    assert limit_of("birds").active_slots == 0


def test_kill_9_frees_the_turn_at_once_and_the_lost_run_is_crashed():
    settings = get_settings_context().settings.to_environment_variables(exclude_unset=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING],
        env=os.environ | settings | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as holding:
        assert holding.stdout.readline() == "held\n"
        lost = last_flow_run()
        holding.kill()
    assert limit_of("animals").active_slots == 1
    take_turn("animals", wait_minutes=0)
    assert limit_of("animals").active_slots == 0
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(lost.id).state
    assert state.is_crashed()
    assert state.message.startswith(f"process {holding.pid} on ")
    assert "kill -9" in state.message


@pytest.mark.usefixtures("quick_looks")
def test_a_slot_whose_lease_the_server_has_lost_is_freed_after_a_while(monkeypatch, caplog):
    monkeypatch.setattr(turns, "FREED_AFTER_S", 0.5)
    take_turn("newts")
    with get_client(sync_client=True) as client:  # as a restart of the server leaves it
        kept = GlobalConcurrencyLimitUpdate(active_slots=1)
        client.update_global_concurrency_limit("potstill newts", kept)
    with pytest.raises(InputError, match="a run that is gone, or has not said its name yet"):
        take_turn("newts", wait_minutes=0)
    take_turn("newts")
    assert "nobody holds the limit 'potstill newts' any more; it is freed" in caplog.text


def test_a_name_that_prefect_would_refuse_has_a_limit_too():
    take_turn("cats & dogs %", wait_minutes=0)
    assert limit_of("cats _ dogs _").limit == 1


def test_a_limit_that_people_have_raised_stays():
    take_turn("frogs")
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(
            "potstill frogs", GlobalConcurrencyLimitUpdate(limit=2)
        )
    take_turn("frogs")
    assert limit_of("frogs").limit == 2


def test_outside_of_a_flow_there_is_nothing_to_wait_for():
    with turn("toads", 0, print):
        pass
    with get_client(sync_client=True) as client:
        known = client.read_global_concurrency_limits(limit=100)
    assert "potstill toads" not in [limit.name for limit in known]


def test_a_prefect_that_does_not_answer_is_one_line_and_no_other_server_is_meant():
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        for address, meant in (("http://127.0.0.1:9/api/health", True), ("http://[::1]:9", False)):
            with pytest.raises(httpx.ConnectError) as caught:
                httpx.get(address)
            said = say_no_prefect(caught.value)
            assert (said is not None) is meant
            assert not said or said.startswith("Prefect gave up: ConnectError")
    assert say_no_prefect(ValueError("x")) is None
