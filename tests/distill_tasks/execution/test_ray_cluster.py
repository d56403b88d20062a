"""With real clusters of Ray; those that need one started are slow."""

import logging
import os
import threading
import time

import errands
import pytest
from clusters import known_to_nodes

from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.execution.base import map_at_once
from distill_tasks.execution.ray_cluster import RayExecution

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def workers():
    """A Ray of the run's own."""
    with known_to_nodes(), RayExecution().start(4) as started:
        yield started


def test_tasks_work_in_processes_of_their_own_and_their_lines_are_said_here(
    workers, tmp_path, caplog, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folders = [tmp_path / str(number) for number in range(4)]
    with caplog.at_level(logging.INFO, "potstill"):
        found = map_at_once(
            lambda one: workers.call("say_where", errands.say_where, one), folders, 4
        )
    assert str(os.getpid()) not in {where["process"] for where in found}
    assert {where["folder"] for where in found} == {str(tmp_path)}
    assert {where["threads"] for where in found} == {"1"}
    said = sorted(record.getMessage() for record in caplog.records)
    assert said == [f"working in {folder}" for folder in folders]


def test_an_error_is_raised_here_as_it_was_there(workers):
    with pytest.raises(InputError, match="too few rows"):
        workers.call("refuse", errands.refuse, "too few rows")
    with pytest.raises(PotstillError, match="UnsendableError: library: went wrong"):
        workers.call("fail_oddly", errands.fail_oddly)


def test_what_was_killed_is_begun_again_and_the_reason_is_said(workers, tmp_path, caplog):
    assert workers.call("die", errands.die, tmp_path, 1) == 2
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("die: its process was lost: ")
    assert line.endswith("; it is begun again")


@pytest.mark.usefixtures("workers")
def test_an_interrupted_run_has_its_tasks_leave_a_checkpoint(tmp_path):
    ended = []

    def work(started):
        try:
            started.call("stop_well", errands.stop_well, tmp_path)
        except KeyboardInterrupt as error:
            ended.append(type(error))

    def interrupt():
        with RayExecution().start(1) as started:
            threading.Thread(target=work, args=[started]).start()
            while not (tmp_path / "process").is_file():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert (tmp_path / "checkpoint").read_text() == "SIGINT"
    for _ in range(100):  # the thread looks twice a second
        time.sleep(0.05 * (not ended))
    assert ended == [KeyboardInterrupt]
