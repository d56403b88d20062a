"""Whom halving stops, and that what it leaves behind is worth what it cost."""

from dataclasses import replace

import numpy as np
import pytest
from builders import open_run
from samples import make_rows, write_settings, write_splits

from distill_tasks.config import parse_config
from distill_tasks.execution import LocalExecution
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import first_trials
from distill_tasks.results.outcomes import Halving, Stop
from distill_tasks.results.references import PartOfTraining
from distill_tasks.results.run import OpenRun, start_run
from distill_tasks.results.teacher import make_teacher
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.scorecard import Predictions
from distill_tasks.stages.halve import (
    FEWEST_STUDENTS,
    RUNGS,
    Contender,
    SuccessiveHalving,
    halve,
    halve_grid,
    will_halve,
)
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import check_config, keep_corpus
from distill_tasks.students import LayersStudent

GOOD, RUINED = (f"layers-2-epochs-4-learning-rate-{rate}" for rate in ("0.0003", "0.5"))


@pytest.fixture(scope="module")
def grid(tiny_base, tmp_path_factory):
    """Two students alike but for the learning rate, one of which forgets what it started with."""
    folder = tmp_path_factory.mktemp("halve")
    written = write_settings(folder, write_splits(folder), tiny_base)
    make_rows(300, seed=4).to_parquet(folder / "validation.parquet", index=False)
    written["data"]["validation"] = str(folder / "validation.parquet")
    written["students"] = [
        {"family": "layers", "layers": 2, "epochs": 4, "learning_rate": [3e-4, 0.5]},
        {"family": "bag_of_words", "max_features": 50},
    ]
    written["search"] = {"halving": True}
    return parse_config(written, "test")


@pytest.fixture(scope="module")
def run(grid):
    return open_run(grid)


def start_halving(run):
    return SuccessiveHalving(run, Evaluator(run, "validation"))


def contender(name, right, p95_ms, gold, seconds=10.0):
    """A student that is right in the first so many rows of validation and wrong in the others."""
    said = np.where(np.arange(len(gold)) < right, gold, (gold + 1) % 3)
    logits = 5 * np.eye(3, dtype=np.float32)[said]
    part = PartOfTraining(1 / 4, None, logits, seconds)
    return Contender(name, part, Predictions(logits, Calibration()), p95_ms)


def test_only_a_student_that_is_surely_worse_and_no_faster_is_stopped(run):
    gold = run.corpus.splits["validation"].gold
    rows = [
        contender("best", 290, 4.0, gold),
        contender("merely behind", 287, 4.0, gold),
        contender("worse", 240, 4.0, gold),
        contender("worse and slower", 240, 9.0, gold),
        contender("worse but faster", 240, 3.0, gold),
        contender("twin", 290, 4.0, gold),
    ]
    stops = {stop.name: stop for stop in start_halving(run)._compare(rows, 1 / 4)}
    assert set(stops) == {"worse", "worse and slower"}
    assert {stop.better for stop in stops.values()} <= {"best", "twin"}
    stop = stops["worse"]
    assert 0 < stop.gap < 100 * 50 / 300
    assert stop.saved_s == pytest.approx(30)
    assert stop.reason.startswith("stopped after 25 % of its training: ")


def test_whoever_stops_another_one_goes_on(run):
    gold = run.corpus.splits["validation"].gold
    rows = [contender(str(right), right, 1.0, gold) for right in range(60, 300, 30)]
    stops = start_halving(run)._compare(rows, 1 / 2)
    assert len(stops) == len(rows) - 1
    assert {stop.better for stop in stops} == {"270"}


def test_a_grid_is_halved_and_never_twice(grid, run):
    found = halve_grid(run)
    assert (found.students, found.reused) == (2, False)
    assert list(found.reasons) == [RUINED]
    (stop,) = found.stops
    assert stop.better == GOOD
    assert stop.share in RUNGS
    assert 0 < found.saved_share < 1
    names = [trial.student.name for trial in found.remaining(first_trials(grid))]
    assert names == [GOOD, "bag-of-words-50"]
    again = halve_grid(run)
    assert again == replace(found, reused=True)


@pytest.mark.slow
def test_who_is_stopped_does_not_depend_on_where_students_train(grid, tmp_path):
    where = {"work_dir": str(tmp_path), "execution": LocalExecution(workers=2)}
    config = grid.model_copy(update=where)
    corpus = check_config(config)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher)
    beside = start_run(config, keep_corpus(config, corpus), teacher, labels)
    found = halve.fn(beside)
    assert list(found.reasons) == [RUINED]
    assert found == replace(halve_grid(beside.open()), reused=False)


def test_a_student_that_fails_on_the_way_is_left_to_its_own_training(grid, run, tmp_path, caplog):
    teacher = replace(run.teacher, model=replace(run.teacher.model, model="no/such/folder"))
    elsewhere = grid.model_copy(update={"work_dir": str(tmp_path)})
    found = halve_grid(replace(run, config=elsewhere, teacher=teacher))
    assert (found.students, found.stops, found.saved_share) == (0, [], 0.0)
    assert len(found.remaining(first_trials(grid))) == 3
    assert "no/such/folder" in caplog.text


@pytest.mark.parametrize("wanted", [True, False, "auto"])
@pytest.mark.parametrize("count", [FEWEST_STUDENTS - 1, FEWEST_STUDENTS])
def test_large_grids_are_halved_unless_said_otherwise(written, wanted, count):
    written["students"] = [{"family": "bag_of_words", "max_features": [*range(1, count + 1)]}]
    written["search"] = {"halving": wanted}
    config = parse_config(written, "test")
    expected = wanted if wanted != "auto" else count == FEWEST_STUDENTS
    assert will_halve(config) is expected


def test_what_is_not_halved_costs_nothing(written):
    found = halve_grid(OpenRun(parse_config(written, "test"), None, None, None, None))
    assert found == Halving(0, [], 0.0, reused=True)


def test_a_large_grid_of_students_that_cannot_be_halted_is_not_halved(written):
    written["students"] = [{"family": "bag_of_words", "max_features": [*range(1, 10)]}]
    config = parse_config(written, "test")
    assert will_halve(config)
    assert halve_grid(OpenRun(config, None, None, None, None)) == Halving(0, [], 0.0, reused=True)


def test_students_that_differ_in_their_training_alone_have_one_shape():
    one = LayersStudent(layers=2)
    assert one.shape == LayersStudent(layers=2, learning_rate=1e-3, epochs=5).shape
    assert one.shape != LayersStudent(layers=3).shape


def test_what_was_saved_is_a_share_of_the_whole_grid():
    stops = [Stop("a", 1 / 4, "b", 3.0, 30.0), Stop("c", 1 / 2, "b", 3.0, 10.0)]
    assert Halving(4, stops, 160.0, reused=False).saved_share == pytest.approx(0.25)


def test_trials_that_were_not_stopped_are_the_first_ones(grid):
    assert Halving(2, [], 1.0, reused=False).remaining(first_trials(grid)) == first_trials(grid)
