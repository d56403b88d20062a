import logging

import pytest
from builders import make_run
from prefect import flow
from prefect_states import last_flow_run, task_states
from samples import write_words

from distill_tasks.config import parse_config
from distill_tasks.results.grid import Trial, first_trials
from distill_tasks.stages.train import train_all
from distill_tasks.students import StaticStudent

TWO = {"kind": "local", "workers": 2}
GRID = [
    {"family": "bag_of_words", "max_features": [3000, 15]},
    {"family": "bag_of_words", "max_features": [300, 50], "hidden_units": 4},
    {"family": "static", "dimensions": [8, 4], "epochs": 2},
]


def prepare(folder, base, **changes):
    """Return a run whose rows the teacher has answered."""
    folder.mkdir()
    students = [*GRID[:2], GRID[2] | {"model": str(base)}]
    return make_run(parse_config(write_words(folder) | {"students": students} | changes, "test"))


@flow
def both_times(run, trials):
    """Train a grid, and find it trained."""
    return train_all(run, trials), train_all(run, trials)


@pytest.mark.usefixtures("prefect_server")
def test_a_grid_trained_at_once_is_the_grid_trained_one_by_one_failures_too(
    tiny_base, tmp_path, caplog
):
    alone = prepare(tmp_path / "alone", tiny_base)
    beside = prepare(tmp_path / "beside", tiny_base, execution=TWO)
    fails = StaticStudent(dimensions=8, model=str(tiny_base), learning_rate=1e30)
    trials = [*first_trials(alone.config), Trial(fails, 7)]
    expected = train_all(alone, trials)
    with caplog.at_level(logging.INFO, "potstill"):
        made, found = both_times(beside, trials)
    assert len(expected.students) == 6
    assert "the loss became" in made.failed[fails.name]
    assert made.failed == expected.failed
    assert [one.name for one in made.students] == [trial.name for trial in trials[:-1]]
    assert [one.digest for one in made.students] == [one.digest for one in expected.students]
    assert [one.reused for one in made.students] == [False] * 6
    assert [one.reused for one in found.students] == [True] * 6
    states = task_states(last_flow_run())
    names = sorted(f"train {one.name}" for one in made.students)
    assert sorted(name for name, state in states if state == "Completed") == names
    assert sorted(name for name, state in states if state == "Cached") == names
    assert {name for name, state in states if state == "Failed"} == {f"train {fails.name}"}
    said = [record.getMessage() for record in caplog.records]
    assert {f"{name}: learning from 300 rows" for name in names} < set(said)
