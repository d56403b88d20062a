import io
import logging
import time

import pytest
from builders import Screen, clock_of

from distill_tasks.core import live
from distill_tasks.core.live import LiveGrid, LogLines, Progress, shown
from distill_tasks.core.progress import (
    SECONDS_BETWEEN_LOOKS,
    ProgressFile,
    Training,
    TrainingEnd,
    TrainingStep,
)
from distill_tasks.core.run_progress import RunProgress, Stage, told_stage
from distill_tasks.core.terminal import Terminal

LOG = LogLines()


@pytest.fixture
def clock():
    """A clock that stands still until it is moved."""
    with clock_of(live, now=100.0) as mine:
        yield mine


@pytest.fixture
def lines(caplog, monkeypatch):
    """The log lines of this project; `potstill` keeps them from other handlers."""
    monkeypatch.setattr(logging.getLogger("potstill"), "propagate", True)
    caplog.set_level(logging.INFO, logger="potstill")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def watched(monkeypatch):
    """The one console of the process, on a terminal whose output can be read."""
    console = Terminal(file=Screen(), force_terminal=True, width=100, height=20)
    monkeypatch.setattr(live, "terminal", console)
    return console


def wait_for(text, console):
    """Wait until a text is written on a terminal."""
    end = time.monotonic() + 30
    while text not in console.file.getvalue() and time.monotonic() < end:
        time.sleep(0.02)
    assert text in console.file.getvalue()


def begin(grid, *names):
    """Have a grid hear that trainings begin."""
    for name in names:
        grid.hear(TrainingStep(name))


def test_without_a_terminal_there_is_a_line_every_fifteen_seconds(clock, lines):
    grid = LiveGrid(Terminal(file=io.StringIO()))
    begin(grid, "layers-1")
    for step in range(40):
        clock.now += 1
        grid.hear(TrainingStep("layers-1", step + 1, 100, loss=2.0))
        grid.show()
    for _ in range(30):  # nothing new
        clock.now += 1
        grid.show()
    grid.hear(TrainingEnd("layers-1", "done"))
    clock.now += 100
    grid.show()
    assert lines() == [
        "layers-1: step 15 of 100, loss 2",
        "layers-1: step 30 of 100, loss 2",
        "layers-1: step 40 of 100, loss 2",
    ]


def test_the_first_line_comes_fifteen_seconds_after_the_first_training_began(clock, lines):
    grid = LiveGrid(Terminal(file=io.StringIO()))
    clock.now += 1000
    begin(grid, "layers-1")
    grid.hear(TrainingStep("layers-1", 1, 100))
    grid.show()
    assert not lines()


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
        begin(grid, name)
        grid.hear(TrainingStep(name, 123, 1234, 0.125, 0.123, 0.951, 1123.5, 3600.0))
    console.print(grid.table())
    rows = [line for line in console.file.getvalue().splitlines() if line.startswith(" layers-1")]
    assert len({line.split()[0] for line in rows}) == 2
    assert all("123 of 1234  0.123     0.951   1,124  1:00:00" in line for line in rows)


def test_the_table_has_a_row_for_each_training_that_is_or_was():
    grid = LiveGrid(Terminal(file=io.StringIO(), height=20))
    begin(grid, "layers-2")
    grid.hear(TrainingStep("layers-2", 100, 800, 0.125, 0.4, 0.91, 1500.0, 0.0))
    grid.hear(TrainingEnd("layers-2", "done"))
    begin(grid, "bag-of-words-50")
    grid.hear(TrainingEnd("bag-of-words-50", "done"))
    begin(grid, "layers-1")
    grid.hear(TrainingStep("layers-1", 10, 400, 0.125, 0.7))
    grid.hear(TrainingEnd("layers-1", "failed"))
    begin(grid, "layers-2")
    grid.hear(TrainingStep("layers-2", 110, 800, 0.25, rows_per_s=1600.0, seconds_left=65.0))
    head, _, *rows = write(grid)
    assert head == ["candidate", "rung", "step", "loss", "accuracy", "rows/s", "left"]
    assert rows == [
        ["layers-2", "25 %", "110 of 800", "0.4", "0.91", "1,600", "0:01:05"],
        ["bag-of-words-50", "100 %", "–", "–", "–", "–", "done"],
        ["layers-1", "12.5 %", "10 of 400", "0.7", "–", "–", "failed"],
    ]
    grid.hear(TrainingEnd("layers-2", "done"))
    assert write(grid)[2][-1] == "stopped"


def test_names_are_text_in_the_table_the_bar_and_the_lines(watched):
    name = "of [/red] :smile:"
    grid = LiveGrid(watched)
    begin(grid, name)
    grid.show()
    assert name in write(grid)[2]
    grid.close()
    LOG.emit(logging.makeLogRecord({"msg": name}))
    bar = Progress(name, "rows")
    bar.start(1)
    bar.stop()
    assert watched.file.getvalue().count(name) >= 3


def test_a_log_line_holds_no_password_and_clears_no_screen(watched):
    said = "\x1b[2Jretrying http://bob:hunter2@mlflow.example/api"
    LOG.emit(logging.makeLogRecord({"msg": said}))
    line = watched.file.getvalue()
    assert "␛[2Jretrying http://***@mlflow.example/api" in line
    assert "hunter2" not in line
    assert "\x1b[2J" not in line


def test_a_grid_too_long_for_the_terminal_keeps_the_latest():
    grid = LiveGrid(Terminal(file=io.StringIO(), height=9))
    for name in ("a", "b", "c", "d", "e"):
        begin(grid, name)
        grid.hear(TrainingEnd(name, "done"))
    begin(grid, "b")
    _, _, *rows, caption = write(grid)
    assert [row[0] for row in rows] == ["b", "d", "e"]
    assert caption == ["and 2 more"]
    assert len(write(grid)) <= 9


def test_in_a_terminal_the_table_stands_while_something_trains(watched, lines, tmp_path):
    file = ProgressFile(tmp_path, "layers-1")
    with shown(tmp_path):
        with file.told():
            training = Training(file, 10, 32)
            wait_for("candidate", watched)
            LOG.emit(logging.makeLogRecord({"msg": "a line"}))
            assert "a line" in watched.file.getvalue()
            during = watched.file.getvalue()
            training.reach(5, loss=0.125, accuracy=0.9)
            wait_for("0.125", watched)
        wait_for("\x1b[?25h", watched)  # the cursor is back
        assert watched.file.getvalue().endswith("\x1b[2K")  # and the table is wiped away
        assert watched.file.getvalue() != during
        silent = len(watched.file.getvalue())
        time.sleep(1.5 * SECONDS_BETWEEN_LOOKS)
    assert len(watched.file.getvalue()) == silent
    assert not lines()


def test_the_table_goes_away_when_a_training_fails(watched, tmp_path):
    def fail():
        with shown(tmp_path), ProgressFile(tmp_path, "layers-1").told():
            wait_for("candidate", watched)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert watched.file.getvalue().endswith("\x1b[2K")


def test_the_table_of_a_training_that_was_killed_goes_away_with_the_run(watched, tmp_path):
    with shown(tmp_path):
        ProgressFile(tmp_path, "layers-1").write([TrainingStep("layers-1")])
        wait_for("candidate", watched)
    assert watched.file.getvalue().endswith("\x1b[2K")


def test_a_bar_inside_a_training_does_not_break_its_table(watched):
    grid = LiveGrid(watched)
    begin(grid, "bag-of-words")
    grid.show()
    bar = Progress("training", "epochs")
    bar.start(3)
    bar.reach(2)
    bar.stop()
    grid.show()
    assert grid._live is not None
    grid.hear(TrainingEnd("bag-of-words", "done"))
    grid.show()
    assert watched.file.getvalue().endswith("\x1b[2K")


def test_without_halving_there_are_no_rungs():
    grid = LiveGrid(Terminal(file=io.StringIO(), width=100, height=20))
    begin(grid, "layers-1")
    grid.hear(TrainingStep("layers-1", 10, 400, loss=0.7))
    assert write(grid)[0] == ["candidate", "step", "loss", "accuracy", "rows/s", "left"]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_grid_fits_its_terminal_and_cuts_no_figure(width):
    console = Terminal(file=io.StringIO(), width=width, height=20)
    grid = LiveGrid(console)
    name = "layers-1-width-128-learning-rate-0.0001-feed-forward-64"
    begin(grid, name)
    grid.hear(TrainingStep(name, 12345, 123456, 0.125, 0.00123, 0.951, 1123.5, 36000.0))
    console.print(grid.table())
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "12345 of 123456" in lines[2] + lines[3]
    assert "10:00:00" in lines[2] + lines[3]
    assert "…" not in lines[1]


@pytest.fixture
def run(tmp_path):
    return RunProgress((Stage("read", "read the rows", 1), Stage("train", "train", 1)), tmp_path)


def test_in_a_terminal_the_run_stands_above_the_grid(watched, run, tmp_path):
    with shown(tmp_path, run=run), told_stage("train"):
        wait_for("stage 2 of 2", watched)
        with ProgressFile(tmp_path, "layers-1").told():
            wait_for("candidate", watched)
            wait_for("stage 2 of 2", watched)
    drawn = watched.file.getvalue()
    assert drawn.rindex("stage 2 of 2") > drawn.index("candidate")
    assert drawn.endswith("\x1b[2K")  # both are wiped away


def test_elsewhere_each_stage_of_a_run_is_a_line(monkeypatch, lines, run, tmp_path):
    monkeypatch.setattr(live, "terminal", Terminal(file=io.StringIO()))
    with shown(tmp_path, run=run):
        for name in ("read", "train"):
            with told_stage(name):
                time.sleep(2 * SECONDS_BETWEEN_LOOKS)
    assert [line.split(":")[-1] for line in lines()] == [" read the rows", " train"]
