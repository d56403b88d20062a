import logging
import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from builders import Screen, open_run
from hypothesis import given
from hypothesis import strategies as st
from samples import write_words

from distill_tasks.config import parse_config
from distill_tasks.core import live, progress
from distill_tasks.core.progress import ProgressFile, TrainingStep
from distill_tasks.core.terminal import Terminal
from distill_tasks.results.estimates import (
    Pace,
    Planned,
    Probe,
    estimate_student,
    plan_grid,
)
from distill_tasks.results.grid import first_trials
from distill_tasks.results.trained import train_one
from distill_tasks.stages.prepare import check_config
from distill_tasks.students import BagOfWordsStudent, LayersStudent, StaticStudent, base


@pytest.fixture
def planned(written):
    """Plan a grid of students, and return it with its configuration and corpus."""

    def run(students, **changes):
        config = parse_config(written | {"students": students} | changes, "test")
        corpus = check_config(config)
        return config, corpus, plan_grid(config, corpus)

    return run


@pytest.fixture
def tried(caplog, monkeypatch):
    """The students that were tried, from the log."""
    monkeypatch.setattr(logging.getLogger("potstill"), "propagate", True)
    caplog.set_level(logging.INFO, logger="potstill")
    said = "plan: a few steps of "
    return lambda: [
        record.getMessage().removeprefix(said)
        for record in caplog.records
        if record.getMessage().startswith(said)
    ]


def test_training_takes_the_planned_steps_and_gives_the_planned_parameters(
    planned, tiny_base, monkeypatch
):
    monkeypatch.setattr(base, "SHORT_ROWS", 128)  # of 182, in batches of 64
    students = [
        {"family": "layers", "layers": 1, "batch_rows": 2, "accumulated_batches": 3, "epochs": 2},
        {"family": "layers", "layers": 2, "batch_rows": 3, "width": 16},
        {"family": "layers", "layers": 1, "batch_rows": 4, "vocabulary": "corpus"},
        {"family": "static", "dimensions": 8, "epochs": 3},
        {"family": "bag_of_words", "max_features": [20, 5000]},
    ]
    ready = {"kind": "transformers", "model": str(tiny_base), "max_length": 16}
    config, corpus, grid = planned(students, teacher=ready)
    assert [one.name for one in grid] == [student.name for student in config.students]
    assert all(one.minutes > 0 for one in grid)
    assert [one.at_least for one in grid] == [False, False, True, False, True, True]

    run = open_run(config, corpus)
    for one, trial in zip(grid, first_trials(config), strict=True):
        trained = train_one(run, trial)
        pace = Pace(ProgressFile(Path(config.work_dir), trial.name).read())
        assert one.steps == (pace.steps or None), one.name
        assert (one.parameters < trained.parameters) if one.name == "bag-of-words-5000" else True
        assert one.parameters <= trained.parameters
        assert one.at_least or one.parameters == trained.parameters


def test_students_that_differ_in_their_course_alone_are_tried_once(planned, tried):
    students = [
        {"family": "layers", "layers": 1, "learning_rate": [1e-3, 1e-4], "epochs": [1, 2]},
        {"family": "layers", "layers": 1, "batch_rows": 16},
    ]
    _, _, grid = planned(students)
    assert len(tried()) == 2
    assert len(grid) == 5
    shared = grid[:4]
    assert len({round(one.minutes / one.steps, 12) for one in shared}) == 1
    assert sorted(one.steps for one in shared) == [6, 6, 12, 12]  # 182 rows in batches of 32


def files(folder):
    """Return every file and folder below, with the time of its last change."""
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


def test_a_plan_leaves_nothing_behind_and_makes_no_teacher(written, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    config = parse_config(written, "test")
    corpus = check_config(config)
    before = files(tmp_path)
    assert len(plan_grid(config, corpus)) == 4
    after = files(tmp_path)
    scratch = tmp_path / "scratch"
    assert {path for path in after if path != scratch} == before.keys() - {scratch}
    assert {path: when for path, when in after.items() if path != scratch} == {
        path: when for path, when in before.items() if path != scratch
    }


def test_losses_that_need_the_teacher_beside_have_it(planned, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(live, "terminal", Terminal(file=screen, force_terminal=True, width=100))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.01)
    students = [{"family": "layers", "layers": 1, "epochs": 1}]
    terms = {"terms": {"kl": 1.0, "hidden": 0.5}, "temperature": "auto", "alpha": "auto"}
    _, _, (one,) = planned(students, loss=terms)
    assert one.steps == 6
    assert one.name in screen.getvalue()  # and it was shown


def test_a_teacher_without_weights_can_be_planned(empty_mlflow, tmp_path):
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    config = parse_config(write_words(tmp_path), "test")
    grid = plan_grid(config, check_config(config))
    assert [one.name for one in grid] == ["bag-of-words-3000", "bag-of-words-15"]
    assert [one.steps for one in grid] == [None, None]


@given(
    rows=st.integers(1, 5000),
    batch_rows=st.integers(1, 64),
    accumulated=st.integers(1, 4),
    epochs=st.integers(1, 9),
)
def test_steps_are_those_of_the_trainer(rows, batch_rows, accumulated, epochs):
    student = LayersStudent(
        layers=1, batch_rows=batch_rows, accumulated_batches=accumulated, epochs=epochs
    )

    def count(some):
        """Return the steps of one epoch, as the Trainer counts them."""
        batches = math.ceil(some / batch_rows)
        return batches // accumulated + int(batches % accumulated > 0)

    tried = min(rows, student.short_training.rows)
    probe = Probe(tried, 1, seconds=9.0, steps=count(tried), step_s=0.5)
    found = estimate_student(student, probe, rows)
    assert found.steps == epochs * count(rows)
    assert found.minutes == pytest.approx(found.steps * 0.5 / 60)


def test_minutes_follow_from_the_steps_or_else_from_the_rows():
    student = StaticStudent(epochs=3)
    probe = Probe(rows=128, parameters=7, seconds=60.0, steps=2, step_s=0.5)
    assert estimate_student(student, probe, 640) == Planned(student.name, 7, False, 30, 0.25)
    words = BagOfWordsStudent(max_features=50)
    probe = Probe(rows=100, parameters=7, seconds=6.0, steps=0, step_s=0.0)
    assert estimate_student(words, probe, 1000) == Planned(words.name, 7, True, None, 1.0)
    assert estimate_student(words, probe, 100).at_least is False
    hashed = BagOfWordsStudent(max_features=50, hashed=True)
    assert estimate_student(hashed, probe, 1000).at_least is False


def pace_of(**times):
    """Return the pace of a training from the seconds at which its steps were told."""
    return Pace(TrainingStep("a", int(step[1:]), 9, seconds=at) for step, at in times.items())


def test_the_first_steps_are_not_timed():
    pace = pace_of(s0=0.0, s1=9.0, s2=12.0, s3=13.0, s4=14.0, s5=16.0)
    assert pace.steps == 5
    assert pace.step_s == pytest.approx((16 - 12) / 3)
    assert pace_of(s0=0.0, s4=14.0, s8=22.0).step_s == 2.0  # not all are told
    assert pace_of(s0=0.0, s1=9.0, s2=12.0).step_s == 6.0  # there are too few to leave any out
    assert Pace([]).step_s == Pace([]).steps == 0


def test_a_step_that_is_told_twice_is_timed_once():
    step = TrainingStep("a", 1, 1, seconds=2.0)
    assert Pace([TrainingStep("a", 0, 1), step, replace(step, seconds=9.0)]).step_s == 2.0
