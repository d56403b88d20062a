"""Stages as Prefect tasks: called, submitted, mapped, in threads and in other processes."""

import errno
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from builders import Screen
from prefect import flow, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.sorting import FlowRunSort
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task
from prefect.transactions import transaction
from prefect_states import progress_artifacts

from distill_tasks.config import parse_config
from distill_tasks.core import live, progress
from distill_tasks.core.errors import DiskFullError, InputError
from distill_tasks.core.terminal import Terminal
from distill_tasks.results.grid import first_trials
from distill_tasks.results.run import start_run
from distill_tasks.stages.label import label, teach
from distill_tasks.stages.prepare import prepare
from distill_tasks.stages.progress_artifacts import name_key, show_trainings
from distill_tasks.stages.stage import stage
from distill_tasks.stages.train import train

pytestmark = pytest.mark.usefixtures("prefect_server")

IN_PROCESSES = ProcessPoolTaskRunner(max_workers=1)
IN_THREADS = ThreadPoolTaskRunner(max_workers=2)


@dataclass(frozen=True)
class Found:
    """What the stage of these tests finds, and in which process."""

    number: int
    reused: bool
    process: int


@stage("find {number}")
def find(number: int) -> Found:
    """Find even numbers made before."""
    return Found(number, number % 2 == 0, os.getpid())


@flow
def call(numbers):
    return [find(number) for number in numbers]


@flow
def submit(numbers):
    return [find.submit(number).result() for number in numbers]


@flow
def spread(numbers):
    return find.map(numbers).result()


@flow
def rename(numbers):
    return [find.with_options(task_run_name="find no {number}")(number) for number in numbers]


def task_states(count):
    """Return how so many tasks of the last flow run ended, by their names.

    The server hears of them a moment later.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        one = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            tasks = client.read_task_runs(task_run_filter=one)
            if len(tasks) == count and all(task.state and task.state.is_final() for task in tasks):
                break
            time.sleep(0.1)
        return {task.name: task.state_name for task in tasks}


@pytest.mark.parametrize(
    "run",
    [
        call,
        rename,
        submit,
        spread.with_options(task_runner=IN_THREADS),
        spread.with_options(task_runner=IN_PROCESSES),
    ],
    ids=["call", "with_options", "submit", "map in threads", "map in processes"],
)
def test_a_stage_yields_its_result_however_it_is_run_and_what_was_kept_is_cached(run):
    found = run([1, 2])
    assert [(one.number, one.reused) for one in found] == [(1, False), (2, True)]
    elsewhere = run.task_runner == IN_PROCESSES
    assert all((one.process != os.getpid()) == elsewhere for one in found)
    shown = "find no" if run is rename else "find"
    assert task_states(2) == {f"{shown} 1": "Completed", f"{shown} 2": "Cached"}


def test_the_function_of_a_stage_is_called_without_prefect_and_touches_no_transaction():
    assert isinstance(find, Task)
    with transaction() as mine:
        assert find.fn(2) == Found(2, True, os.getpid())
        assert not mine.is_committed()


@stage("fail {path}", retries=1)
def fail(path: str, error: Exception) -> None:
    """Count the tries in a file, and raise an error."""
    tries = Path(path)
    tries.write_text(f"{tries.read_text() if tries.exists() else ''}.")
    raise error


FAULT = OSError(errno.EIO, "a cable came loose")
WRONG = InputError("the column is missing")
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "raised", "tries"),
    [(FAULT, OSError, 2), (WRONG, InputError, 1), (FULL, DiskFullError, 1)],
    ids=["fault", "input", "full disk"],
)
@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_stage_is_tried_again_where_that_can_help_and_a_full_disk_says_so(
    tmp_path, error, raised, tries, way
):
    quick = fail.with_options(retry_delay_seconds=0)

    @flow
    def run():
        given = str(tmp_path / "tries"), error
        quick(*given) if way == "call" else quick.submit(*given).result()

    with pytest.raises(raised):
        run()
    assert (tmp_path / "tries").read_text() == tries * "."


@flow
def train_grid(config):
    """Train the grid wherever the flow's tasks run."""
    with show_trainings(config.work_dir):
        corpus = prepare(config)
        teacher = teach(config, corpus)
        run = start_run(config, corpus, teacher, label(config, corpus, teacher))
        return train.map(unmapped(run), first_trials(config)).result()


def test_a_student_trained_in_another_process_is_shown_here(quick, tmp_path, monkeypatch):
    console = Terminal(file=Screen(), force_terminal=True, width=120, height=20)
    monkeypatch.setattr(live, "terminal", console)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.02)
    quick["students"] = [{"family": "bag_of_words", "max_features": 50, "hidden_units": [8, 256]}]
    config = parse_config(quick, "test")
    names = [student.name for student in config.students]

    elsewhere = train_grid.with_options(task_runner=IN_PROCESSES)(config)
    assert [student.name for student in elsewhere] == names
    steps = int(elsewhere[0].curve[-1]["step"])
    screen = console.file.getvalue()
    assert f" of {steps}" in screen
    assert screen.endswith("\x1b[2K")  # the table is wiped away
    for name in names:
        assert name in screen
        item = progress_artifacts()[name_key(name)]
        assert item["data"] == 100.0
        assert f"step {steps} of {steps}, loss" in item["description"]
    assert not (Path(config.work_dir) / progress.FOLDER).exists()

    silent = len(screen)
    again = train_grid.with_options(task_runner=IN_THREADS)(config)
    assert again == [replace(student, reused=True) for student in elsewhere]
    states = task_states(len(names) + 3)
    assert {states[f"train {name}"] for name in names} == {"Cached"}
    assert len(console.file.getvalue()) == silent

    moved = config.model_copy(update={"work_dir": str(tmp_path / "here")})
    here = train_grid.with_options(task_runner=IN_THREADS)(moved)
    for one, other in zip(here, elsewhere, strict=True):
        assert one.trained == other.trained
        losses = [[point["train/loss"] for point in student.curve] for student in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # rounding
