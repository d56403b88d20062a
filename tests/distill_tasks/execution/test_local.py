"""With real processes and real kills."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import errands
import pytest
from processes import is_there, wait_until

from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.execution.base import HERE, LostError, map_at_once
from distill_tasks.execution.local import LocalExecution, share_machine


@pytest.fixture(scope="module")
def workers():
    with LocalExecution(workers=2).start(4) as started:
        yield started


def wait_for(path):
    wait_until(lambda: path.is_file() and path.read_text(), 60)
    return path.read_text()


def test_one_worker_is_this_process_and_so_are_any_without_work():
    with LocalExecution(workers=2).start(0) as idle:
        assert idle is HERE
    with LocalExecution().start(4) as alone:
        assert alone is HERE
        assert alone.call("getpid", os.getpid) == os.getpid()


def test_two_work_at_once_in_processes_of_their_own_and_their_lines_are_said_here(
    workers, tmp_path, caplog, capfd
):
    folders = [tmp_path / str(number) for number in range(4)]
    with caplog.at_level(logging.INFO, "potstill"):
        found = map_at_once(
            lambda one: workers.call("say_where", errands.say_where, one), folders, 2
        )
    processes = {where["process"] for where in found}
    assert 1 <= len(processes) <= 2
    assert str(os.getpid()) not in processes
    assert {where["folder"] for where in found} == {str(Path.cwd())}
    assert str(os.getsid(0)) not in {where["session"] for where in found}  # as Ctrl-C asks for
    said = sorted(record.getMessage() for record in caplog.records)
    assert said == [f"working in {folder}" for folder in folders]
    assert "not an answer" not in capfd.readouterr().out


def test_an_error_is_raised_here_as_it_was_there(workers):
    with pytest.raises(InputError, match="too few rows") as caught:
        workers.call("refuse", errands.refuse, "too few rows")
    assert "in refuse" in "".join(caught.value.__notes__)
    with pytest.raises(PotstillError, match="UnsendableError: library: went wrong"):
        workers.call("fail_oddly", errands.fail_oddly)


def test_what_was_killed_is_begun_again_and_the_reason_is_said(workers, tmp_path, caplog):
    assert workers.call("die", errands.die, tmp_path, 2) == 3
    lines = [record.getMessage() for record in caplog.records]
    killed = "its process was killed (SIGKILL), as the system does when memory runs out"
    assert lines == [f"die: {killed}; it is begun again"] * 2


def test_what_is_killed_again_and_again_is_given_up(workers, tmp_path):
    with pytest.raises(LostError, match=r"its process was killed .*, 3 times"):
        workers.call("die", errands.die, tmp_path, 9)
    assert len(list(tmp_path.iterdir())) == 3
    assert workers.call("getpid", os.getpid) != os.getpid()  # the next task is not affected


def test_an_interrupted_run_has_its_processes_leave_a_checkpoint(tmp_path):
    ended = []

    def work(started):
        try:
            started.call("stop_well", errands.stop_well, tmp_path)
        except KeyboardInterrupt as error:
            ended.append(type(error))

    def interrupt():
        with LocalExecution(workers=2).start(4) as started:
            threading.Thread(target=work, args=[started]).start()
            wait_for(tmp_path / "process")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    process = (tmp_path / "process").read_text()
    assert (tmp_path / "checkpoint").read_text() == "SIGTERM"
    wait_until(lambda: ended == [KeyboardInterrupt])
    assert not is_there(process)


RUN = """
import sys
from pathlib import Path
import errands
from distill_tasks.execution.local import LocalExecution
with LocalExecution(workers=2).start(4) as workers:
    workers.call("stop_well", errands.stop_well, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_behind(tmp_path):
    path = os.pathsep.join(name for name in sys.path if name)
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen([sys.executable, "-c", RUN, tmp_path], env=environment) as run:
        process = wait_for(tmp_path / "process")
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_there(process))
    assert (tmp_path / "checkpoint").read_text() == "SIGTERM"


def test_processes_share_the_cores_and_what_the_user_set_stays():
    cores = len(os.sched_getaffinity(0))
    assert share_machine(0, 1, {})["OMP_NUM_THREADS"] == str(cores)
    assert share_machine(0, 2 * cores, {})["OMP_NUM_THREADS"] == "1"
    assert share_machine(0, 2, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"
    given = [share_machine(n, 3, {"CUDA_VISIBLE_DEVICES": "2, 5"}) for n in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in given] == ["2", "5", "2"]
    assert share_machine(0, 2, {"CUDA_VISIBLE_DEVICES": ""})["CUDA_VISIBLE_DEVICES"] == ""
