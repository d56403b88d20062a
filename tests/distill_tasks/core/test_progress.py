import io
import itertools
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import make_gold_set

from distill_tasks.core import progress
from distill_tasks.core.progress import (
    LOSSES,
    LiveGrid,
    Progress,
    Training,
    TrainingStep,
    heard_by,
    shown,
)
from distill_tasks.core.terminal import Terminal
from distill_tasks.results.trained import Losses
from distill_tasks.students import LayersStudent, StaticStudent, train_student


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    mine = Clock()
    monkeypatch.setattr(progress, "time", mine)
    return mine


@pytest.fixture
def lines(caplog, monkeypatch):
    """The log lines of this project; `potstill` keeps them from other handlers."""
    monkeypatch.setattr(logging.getLogger("potstill"), "propagate", True)
    caplog.set_level(logging.INFO, logger="potstill")
    return lambda: [record.getMessage() for record in caplog.records]


class Screen(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def watched(monkeypatch):
    """The one console and grid of the process, on a terminal whose output can be read."""
    console = Terminal(file=Screen(), force_terminal=True, width=100, height=20)
    monkeypatch.setattr(progress, "terminal", console)
    monkeypatch.setattr(progress, "grid", LiveGrid(console))
    return console


def heard(run):
    """Return all that was told while something runs."""
    told = []
    with heard_by(told.append):
        run()
    return told


def test_a_training_tells_every_step_with_its_pace(clock):
    def run():
        with shown("layers-1"):
            training = Training(steps=80, rows_per_step=32, share=0.25, done=10)
            clock.now += 4
            training.reach(14)
            training.reach(14, loss=0.5)
            training.reach(14, accuracy=0.9)

    first, *others = heard(run)
    assert first == TrainingStep("layers-1", 10, 80, 0.25)
    step = TrainingStep("layers-1", 14, 80, 0.25, rows_per_s=32.0, seconds_left=6.0)
    assert others == [step, replace(step, loss=0.5), replace(step, accuracy=0.9)]
    assert step.percent == 17.5
    assert step.rung == "25 %"


def test_what_trains_without_a_name_has_one_all_the_same():
    assert {step.name for step in heard(lambda: Training(4, 1).reach(1))} == {"training"}


def test_a_block_without_a_name_belongs_to_the_block_around_it():
    def run():
        with shown("outer"), shown():
            Training(4, 1)
        with shown():
            Training(4, 1)

    assert [step.name for step in heard(run)] == ["outer", "training"]


def test_listeners_hear_their_own_block_alone():
    outer, inner = [], []
    with heard_by(outer.append):
        Training(4, 1)
        with heard_by(inner.append):
            Training(4, 1)
    Training(4, 1)
    assert (len(outer), len(inner)) == (2, 1)


@given(
    losses=st.lists(st.floats(0, 1e3), min_size=1, max_size=300),
    steps_per_epoch=st.integers(1, 300),
)
def test_told_losses_are_few_and_make_the_mean_of_each_epoch(losses, steps_per_epoch):
    epochs = math.ceil(len(losses) / steps_per_epoch)

    def run():
        training = Training(len(losses), 1)
        for number, loss in enumerate(losses, start=1):
            training.take(loss, ends_epoch=number % steps_per_epoch == 0)

    told = {step.step: step.loss for step in heard(run) if step.loss is not None}
    assert len(told) <= LOSSES + epochs
    marks = [0, *told]
    for before, mark in itertools.pairwise(marks):
        assert told[mark] == pytest.approx(np.mean(losses[before:mark]), abs=1e-9)
    whole = range(steps_per_epoch, len(losses) + 1, steps_per_epoch)
    assert set(whole) <= told.keys()


def test_a_step_keeps_what_was_told_before():
    early = TrainingStep("a", 3, 8, 1.0, loss=0.5, accuracy=0.9, rows_per_s=10.0, seconds_left=4.0)
    late = TrainingStep("a", 4, 8, 1.0, loss=0.25)
    assert late.after(early) == replace(early, step=4, loss=0.25, seconds_left=None)
    assert TrainingStep("a", 0, 8).after(early) == TrainingStep("a", 0, 8)


def test_all_that_is_known_is_one_line():
    step = TrainingStep("a", 3, 8, 0.125, 0.51234, 0.9, 1234.5, 3725.4)
    assert str(step) == (
        "a: step 3 of 8, rung 12.5 %, loss 0.512, accuracy 0.9, 1,234 rows/s, 1:02:05 left"
    )
    assert str(TrainingStep("a", 3, 8)) == "a: step 3 of 8"


def test_without_a_terminal_there_is_a_line_every_fifteen_seconds(clock, lines):
    def run():
        with shown("layers-1"):
            training = Training(100, 32)
            for _ in range(40):
                clock.now += 1
                training.take(2.0)

    run()
    assert lines() == [
        "layers-1: step 15 of 100, loss 2, 32 rows/s, 0:01:25 left",
        "layers-1: step 30 of 100, loss 2, 32 rows/s, 0:01:10 left",
    ]


def write(grid):
    """Return the table as it would stand in a terminal, row by row and cell by cell."""
    console = Terminal(record=True, file=io.StringIO(), width=100)
    console.print(grid.table())
    rows = [line.split("  ") for line in console.export_text().splitlines() if line.strip()]
    return [[cell.strip() for cell in row if cell.strip()] for row in rows]


def test_long_names_are_told_apart_and_nothing_else_is_cut():
    console = Terminal(file=io.StringIO(), width=80, height=20)
    grid = LiveGrid(console)
    for rate in ("0.0001", "0.001"):
        name = f"layers-1-width-128-learning-rate-{rate}"
        grid.begin(name)
        grid.hear(TrainingStep(name, 123, 1234, 0.125, 0.123, 0.951, 1123.5, 3600.0))
    console.print(grid.table())
    shown = [line for line in console.file.getvalue().splitlines() if line.startswith(" layers-1")]
    assert len({line.split()[0] for line in shown}) == 2
    assert all("123 of 1234  0.123     0.951   1,124  1:00:00" in line for line in shown)


def test_the_table_has_a_row_for_each_training_that_is_or_was():
    grid = LiveGrid(Terminal(file=io.StringIO(), height=20))
    grid.begin("layers-2")
    grid.hear(TrainingStep("layers-2", 100, 800, 0.125, 0.4, 0.91, 1500.0, 0.0))
    grid.end("layers-2", "done")
    grid.begin("bag-of-words-50")
    grid.end("bag-of-words-50", "done")
    grid.begin("layers-1")
    grid.hear(TrainingStep("layers-1", 10, 400, 0.125, 0.7))
    grid.end("layers-1", "failed")
    grid.begin("layers-2")
    grid.hear(TrainingStep("layers-2", 110, 800, 0.25, rows_per_s=1600.0, seconds_left=65.0))
    head, _, *rows = write(grid)
    assert head == ["candidate", "rung", "step", "loss", "accuracy", "rows/s", "left"]
    assert rows == [
        ["layers-2", "25 %", "110 of 800", "0.4", "0.91", "1,600", "0:01:05"],
        ["bag-of-words-50", "100 %", "–", "–", "–", "–", "done"],
        ["layers-1", "12.5 %", "10 of 400", "0.7", "–", "–", "failed"],
    ]
    grid.end("layers-2", "done")
    assert write(grid)[2][-1] == "stopped"


def test_names_are_text_in_the_table_the_bar_and_the_lines(watched):
    name = "of [/red] :smile:"
    grid = LiveGrid(watched)
    grid.begin(name)
    assert name in write(grid)[2]
    grid.end(name, "done")
    progress.LogLines().emit(logging.makeLogRecord({"msg": name}))
    bar = Progress(name, "rows")
    bar.start(1)
    bar.stop()
    assert watched.file.getvalue().count(name) >= 3


def test_a_log_line_holds_no_password_and_clears_no_screen(watched):
    said = "\x1b[2Jretrying http://bob:hunter2@mlflow.example/api"
    progress.LogLines().emit(logging.makeLogRecord({"msg": said}))
    shown = watched.file.getvalue()
    assert "␛[2Jretrying http://***@mlflow.example/api" in shown
    assert "hunter2" not in shown
    assert "\x1b[2J" not in shown


def test_a_grid_too_long_for_the_terminal_keeps_the_latest():
    grid = LiveGrid(Terminal(file=io.StringIO(), height=9))
    for name in ("a", "b", "c", "d", "e"):
        grid.begin(name)
        grid.end(name, "done")
    grid.begin("b")
    _, _, *rows, caption = write(grid)
    assert [row[0] for row in rows] == ["b", "d", "e"]
    assert caption == ["and 2 more"]
    assert len(write(grid)) <= 9


def test_in_a_terminal_the_table_stands_while_something_trains(watched, lines):
    with shown("layers-1"):
        Training(10, 32).reach(5, loss=0.125)
        during = watched.file.getvalue()
        assert "candidate" in during
        assert progress.grid.table().row_count == 1
        LOG.emit(logging.makeLogRecord({"msg": "a line"}))
        assert "a line" in watched.file.getvalue()
    ended = watched.file.getvalue()[len(during) :]
    assert "0.125" in ended
    assert "\x1b[?25h" in ended  # the cursor is back
    assert ended.endswith("\x1b[2K")  # and the table is wiped away
    assert not lines()


LOG = progress.LogLines()


def test_the_table_goes_away_when_a_training_fails(watched):
    def fail():
        with shown("layers-1"), shown():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert watched.file.getvalue().endswith("\x1b[2K")
    assert progress.grid.ends == {"layers-1": "failed"}
    silent = len(watched.file.getvalue())
    Training(10, 1)
    assert len(watched.file.getvalue()) == silent


def test_a_bar_inside_a_training_does_not_break_its_table(watched):
    with shown("bag-of-words"):
        bar = Progress("training", "epochs")
        bar.start(3)
        bar.reach(2)
        bar.stop()
        assert progress.grid._live is not None
    assert watched.file.getvalue().endswith("\x1b[2K")


STEPS = 48  # 96 rows in batches of 4, twice
LAYERS = LayersStudent(layers=1, batch_rows=4)


@pytest.fixture
def training_set(tiny_base):
    return make_gold_set(tiny_base, 96)


@pytest.mark.parametrize(
    ("student", "steps"), [(LAYERS, STEPS), (StaticStudent(dimensions=4, epochs=5), 15)]
)
def test_a_student_tells_its_steps_and_its_curve_stays_one_of_epochs(
    training_set, student, steps, tmp_path
):
    losses, curves = Losses(), []

    def run():
        with shown(student.name), heard_by(losses):
            curves.append(train_student(student, training_set, tmp_path))

    told = heard(run)
    assert {step.name for step in told} == {student.name}
    assert {step.steps for step in told} == {steps}
    assert [step for step, _ in itertools.groupby(told, lambda s: s.step)] == [*range(steps + 1)]
    (epochs,) = curves
    assert len(epochs) == student.epochs
    curve = losses.join(epochs)
    assert [point["step"] for point in curve] == sorted({p["step"] for p in curve})
    assert len(epochs) < len(curve) <= LOSSES + len(epochs)
    start = 0
    for epoch in epochs:  # the losses by step are those of the epoch
        inside = [point for point in curve if start < point["step"] <= epoch["step"]]
        ends = [start, *(point["step"] for point in inside)]
        means = [point["train/loss"] for point in inside]
        assert np.average(means, weights=np.diff(ends)) == pytest.approx(epoch["train/loss"])
        start = epoch["step"]
    scores = [point for point in curve if "validation/accuracy" in point]
    wanted = [point for point in epochs if "validation/accuracy" in point]
    assert [{**point, "train/loss": 0.0} for point in wanted] == [
        {key: point[key] for key in wanted[0]} | {"train/loss": 0.0} for point in scores
    ]


def test_a_student_that_goes_on_tells_again_what_it_told(training_set, tmp_path):
    def part(share, folder):
        told = heard(lambda: train_student(LAYERS, replace(training_set, share=share), folder))
        return [(step.step, step.loss) for step in told if step.loss is not None], told

    whole, _ = part(1.0, tmp_path / "whole")
    first, told = part(0.25, tmp_path / "halted")
    assert {step.rung for step in told} == {"25 %"}
    assert [step for step, _ in first] == [*range(1, 13)]
    again, told = part(1.0, tmp_path / "halted")
    assert again[:12] == first
    assert [step for step, _ in again] == [step for step, _ in whole] == [*range(1, STEPS + 1)]
    assert [loss for _, loss in again] == pytest.approx([loss for _, loss in whole])
    accuracies = [step.accuracy for step in told if step.accuracy is not None]
    assert len(accuracies) == 2
