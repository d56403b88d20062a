import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distill_tasks.core.progress import FOLDER, ProgressFile, TrainingStep
from distill_tasks.core.run_progress import RunProgress, Stage
from distill_tasks.core.run_status import FlowRun, StatusFile
from distill_tasks.core.store import Store
from flows.commands.status import print_status, status
from flows.status import find_running, gather_status

FILE = Path("distill.yaml")
MOST_SECONDS = 3.0
STAGES = (Stage("prepare", "read the rows", 1), Stage("train", "train the students", 3))


@pytest.fixture(scope="module")
def found(night):
    return gather_status(night.config, FILE)


def told(answer, capsys):
    print_status(answer)
    return capsys.readouterr().out


def track_elsewhere(night, uri):
    tracking = night.config.tracking.model_copy(update={"uri": uri})
    return night.config.model_copy(update={"tracking": tracking})


def test_a_finished_run_its_champion_and_what_is_reused_are_told(night, found, capsys):
    (run,) = found.runs
    chosen = night.outcome.selection.chosen
    assert (run.status, run.chosen, run.link) == (
        "FINISHED",
        chosen,
        night.outcome.distillation.link,
    )
    assert found.store.trained == [student.name for student in night.config.students]
    assert (found.store.missing, found.store.begun, found.store.answers) == ([], 0, 300)
    assert found.champion.version == 1
    assert found.champion.since
    assert (found.running, found.waiting, found.unanswered) == (None, [], None)
    said = told(found, capsys)
    assert said.startswith("animals: nothing is running in")
    assert f"finished: {chosen} " in said
    assert f"Champion of animals: version 1 since {found.champion.since[:10]}" in said


def test_what_was_never_run_is_told_and_nothing_is_made(night, tmp_path, capsys):
    fresh = track_elsewhere(night, f"sqlite:///{tmp_path}/new/mlflow.db")
    fresh = fresh.model_copy(update={"work_dir": str(tmp_path / "work")})
    found = gather_status(fresh, FILE)
    assert (found.runs, found.champion, found.unanswered) == ([], None, None)
    assert found.store.missing == [student.name for student in fresh.students]
    assert "There is no run in MLflow yet." in told(found, capsys)
    assert list(tmp_path.iterdir()) == []


def test_where_a_run_is_can_be_read_from_another_process(tmp_path):
    run, flow_run = RunProgress(STAGES, tmp_path), FlowRun("1-2", "http://prefect/1-2")
    file, progress = StatusFile(run, tmp_path, flow_run), ProgressFile(tmp_path, "layers-2")
    with Store(tmp_path).lock("distill animals"), progress.told(), run.told("train"):
        progress.write([TrainingStep("layers-2", 3, 8)])
        file.show()
        done = subprocess.run([sys.executable, "-c", ASK, tmp_path], stdout=-1, check=True)
        seen = json.loads(done.stdout)
        with ProgressFile(tmp_path, "static-8").told():
            pass
        trainings = {one.name: (one.step, one.steps) for one in find_running(tmp_path).training}
    assert (seen["run"], seen["stage"]) == ("distill animals", "train the students")
    assert (seen["stage_number"], seen["stages"]) == (2, 2)
    assert (seen["flow_run"], seen["flow_run_link"]) == ("1-2", "http://prefect/1-2")
    assert trainings == {"layers-2": (3, 8)}  # the other one has ended


ASK = """
import sys
from pathlib import Path
from flows.status import find_running

print(find_running(Path(sys.argv[1])).model_dump_json())
"""


def test_what_a_killed_run_left_is_not_taken_for_a_run(tmp_path):
    run = RunProgress(STAGES, tmp_path)
    with Store(tmp_path).lock("distill animals"), run.told("prepare"):
        StatusFile(run, tmp_path).show()
    assert (tmp_path / FOLDER / "run.json").is_file()
    assert find_running(tmp_path) is None


@pytest.mark.parametrize("written", ["", "{", "[]", '{"stage": 1}'])
def test_a_status_of_another_version_is_none(tmp_path, written):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "run.json").write_text(written)
    with Store(tmp_path).lock("distill animals"):
        running = find_running(tmp_path)
    assert (running.run, running.stage, running.flow_run) == ("distill animals", None, None)


@pytest.fixture
def silent():
    """The address of a server that takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept = []

        def accept():
            while True:
                try:
                    kept.append(listening.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def closed():
    """The address of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return f"http://user:pass@127.0.0.1:{port}"


@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_an_mlflow_that_does_not_answer_is_said_in_a_line_and_the_rest_is_shown(
    night, found, request, capsys, kind
):
    config = track_elsewhere(night, request.getfixturevalue(kind))
    began = time.monotonic()
    alone = gather_status(config, FILE)
    assert time.monotonic() - began < MOST_SECONDS
    assert "does not answer" in alone.unanswered
    assert "pass" not in alone.unanswered
    assert len(alone.unanswered.splitlines()) == 1
    assert (alone.store, alone.runs, alone.exit_code) == (found.store, [], 0)
    assert "Its runs and versions are not shown." in told(alone, capsys)


def test_the_command_reads_the_file_and_is_quick_beside_imports(night, found, tmp_path):
    path = tmp_path / "distill.yaml"
    path.write_text(json.dumps(night.config.model_dump(mode="json", exclude_none=True)))
    began = time.monotonic()
    assert status(path, json=True).champion == found.champion
    assert time.monotonic() - began < MOST_SECONDS
