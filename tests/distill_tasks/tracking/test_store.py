import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from broken_server import broken_server

from distill_tasks.config import TrackingConfig
from distill_tasks.core.errors import InputError
from distill_tasks.tracking.store import check_experiment, check_tracking


def test_a_server_that_hangs_up_is_tried_twice_and_no_more(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    calls = []

    def hang_up(listening):
        with contextlib.suppress(OSError):
            while True:
                calls.append(listening.accept()[0].close())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=hang_up, args=[listening])
        thread.start()
        with pytest.raises(InputError, match="cannot be reached: "):
            check_tracking(TrackingConfig(uri=f"http://127.0.0.1:{listening.getsockname()[1]}"))
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(calls) == 2


def test_a_server_that_nobody_answers_at_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing else can answer there
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^tracking.uri {uri} cannot be reached: ") as caught:
            check_tracking(TrackingConfig(uri=uri))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("Start that server, or use sqlite:///mlflow.db.")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_server_that_answers_everything_with_500_is_refused_with_that_reason():
    with broken_server() as uri, pytest.raises(InputError) as caught:
        check_tracking(TrackingConfig(uri=uri))
    assert str(caught.value) == (
        f"tracking.uri {uri} cannot be reached: API request to "
        f"{uri}/api/2.0/mlflow/experiments/get-by-name failed: ResponseError('too many 500 error "
        "responses'). Start that server, or use sqlite:///mlflow.db."
    )


def test_an_experiment_that_was_deleted_is_refused_with_the_way_back(house):
    config = house.config.tracking.model_copy(update={"experiment": "regretted"})
    made = house.client.create_experiment("regretted")
    house.client.delete_experiment(made)
    with pytest.raises(InputError) as caught:
        check_experiment(config)
    assert str(caught.value) == (
        "tracking.experiment 'regretted' was deleted. Restore it with `mlflow experiments restore "
        f"--experiment-id {made}`, or name another one."
    )
    house.client.restore_experiment(made)
    check_experiment(config)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path):
    path, text = tmp_path / "some.txt", "no database at all\n" * 300
    path.write_text(text)
    with pytest.raises(InputError, match=r"some.txt cannot be reached: .*file is not a database"):
        check_tracking(TrackingConfig(uri=f"sqlite:///{path}"))
    assert path.read_text() == text


def test_a_database_that_is_a_folder_is_refused_at_once(tmp_path):
    start = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be reached: .*unable to open database file"):
        check_tracking(TrackingConfig(uri=f"sqlite:///{tmp_path}"))
    assert time.monotonic() - start < 20  # MLflow would try for some minutes


@pytest.mark.parametrize(
    "uri", ["nonsense://127.0.0.1/x", "postgresql://127.0.0.1:9/x", "sqlite:/x"]
)
def test_an_address_that_mlflow_cannot_use_is_refused_in_one_line_and_soon(uri):
    start = time.monotonic()
    with pytest.raises(InputError, match=f"tracking.uri {uri} cannot be reached: ") as caught:
        check_tracking(TrackingConfig(uri=uri))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 20  # MLflow would try for 100 s


def test_a_database_in_a_folder_that_may_only_be_read_needs_no_lock(tmp_path, monkeypatch):
    tracking, lock = TrackingConfig(uri=f"sqlite:///{tmp_path}/a.db"), tmp_path / ".a.db.lock"
    check_tracking(tracking)
    lock.unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    check_tracking(tracking)
    assert not lock.exists()


@pytest.mark.slow
def test_two_first_runs_at_once_make_one_database_and_one_experiment(tmp_path):
    """Each a process of its own, as two jobs of one night: MLflow's migrations bear no company."""
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    program = (
        "import sys\n"
        "from distill_tasks.config import TrackingConfig\n"
        "from distill_tasks.tracking.store import check_tracking, connect\n"
        "config = TrackingConfig(uri=sys.argv[1], experiment='night')\n"
        "check_tracking(config)\n"
        "print(connect(config))\n"
    )
    command = [sys.executable, "-c", program, uri]
    processes = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(3)]
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ended
    assert not any("Traceback" in errors for _, errors in ended)
    assert len({said for said, _ in ended}) == 1
