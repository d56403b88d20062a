"""Progress as people see it: a bar or one table of the grid in a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.decisions import DECISIONS
from distill_tasks.core.markup import as_terminal
from distill_tasks.core.progress import (
    Event,
    TrainingEnd,
    TrainingStep,
    Watcher,
    follow,
)
from distill_tasks.core.run_progress import RunProgress, following
from distill_tasks.core.terminal import Terminal
from distill_tasks.core.wording import say_time, say_value

logger = logging.getLogger("potstill")

SECONDS_BETWEEN_LINES = 15.0
REFRESHES_PER_S = 2.0
LINES_AROUND = 6
"""Terminal lines that are left free around the rows of the table."""
MEASURES = ("rung", "step", "loss", "accuracy", "rows/s", "left")
LAST_MEASURES = ("rows/s", "loss", "accuracy", "rung")
"""Those that a narrow terminal leaves out, in this order."""
SHORTEST_NAME = 20

terminal = Terminal(stderr=True)
"""The one console for live displays and log lines, so that they never overwrite each other."""


class LogLines(logging.Handler):
    """Writes log lines to the terminal, above a live display if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; those for programs not where people read."""
        if record.name == DECISIONS and terminal.file.isatty():
            return
        try:
            terminal.say(mask_credentials(self.format(record)))
        except Exception:  # noqa: BLE001  # as every handler: a log line must not end the work
            self.handleError(record)


class Progress:
    """Shows the progress of one long piece of work."""

    def __init__(self, description: str, unit: str) -> None:
        self.description = description
        self.unit = unit
        self._bars: Bars | None = None

    def start(self, total: int) -> None:
        """Start the display, given the number of units of the whole work."""
        self.total = total
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        if terminal.file.isatty():
            self._bars = Bars(
                TextColumn("  {task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self.unit),
                TimeRemainingColumn(),
                console=terminal,
                transient=True,
            )
            self._bars.add_task(as_terminal(self.description), total=total)
            self._bars.start()

    def reach(self, done: int) -> None:
        """Show that this many units are done."""
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=done)
        elif time.monotonic() >= self._next_line:
            logger.info("%s: %d of %d %s", self.description, done, self.total, self.unit)
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def stop(self) -> None:
        """End the display; a bar is removed from the terminal."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class LiveGrid:
    """One row for each training: a table in a terminal, occasional log lines elsewhere."""

    def __init__(self, console: Terminal) -> None:
        self.console = console
        self.rows: dict[str, TrainingStep] = {}
        """The latest step of each training, in the order in which they first began."""
        self.ends: dict[str, str] = {}
        """How each training ended that is no longer running."""
        self._latest: list[str] = []
        """The names of the trainings, the one that began or continued last at the end."""
        self._told: str | None = None
        """The name of the training with the latest step, until a line has shown that step."""
        self._halves = False
        """Whether any student stopped or paused on a rung."""
        self._live: Live | None = None
        self._next_line = 0.0

    def hear(self, event: Event) -> None:
        """Receive the begin, a step or the end of a training."""
        name = event.name
        if isinstance(event, TrainingEnd):
            stopped = event.how == "done" and self.rows[name].share < 1
            self.ends[name] = "stopped" if stopped else event.how
        elif event.begins:
            self._begin(name)
        else:
            self.rows[name] = event.after(self.rows[name])
            self._halves = self._halves or event.share < 1
            self._told = name

    def show(self) -> None:
        """Show the table while something trains; without a terminal, log the latest step."""
        if not self._running():
            self.close()
        elif self.console.file.isatty():
            self._show_table()
        elif self._told in self._running() and time.monotonic() >= self._next_line:
            logger.info("%s", self.rows[self._told])
            self._told = None
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def close(self) -> None:
        """Remove the table until the next training begins."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _begin(self, name: str) -> None:
        if not self._running():
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self.rows.setdefault(name, TrainingStep(name))
        self.ends.pop(name, None)
        self._latest = [*(other for other in self._latest if other != name), name]

    def _running(self) -> set[str]:
        return self.rows.keys() - self.ends.keys()

    def _show_table(self) -> None:
        if self._live is None:
            self._live = Live(
                get_renderable=self.table,
                console=self.console,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
            )
            self._live.start(refresh=True)

    def table(self) -> Table:
        """Return the table of the grid: the latest trainings, as many as the terminal has lines."""
        shown = self._latest[-max(1, self.console.height - LINES_AROUND) :]
        others = len(self._latest) - len(shown)
        caption = f"and {others} more" if others else None
        rows = [row for row in list(self.rows.values()) if row.name in shown]
        cells = [_cells(row, self.ends.get(row.name)) for row in rows]
        measures = self._fit(cells)
        beside = _measure_width(measures, cells)
        width = max(SHORTEST_NAME, self.console.width - beside - 2)
        table = Table(box=SIMPLE_HEAD, caption=caption, pad_edge=False, collapse_padding=True)
        table.add_column("candidate", min_width=SHORTEST_NAME, no_wrap=True)
        for measure in measures:
            table.add_column(measure, justify="right", no_wrap=True)
        for row, known in zip(rows, cells, strict=True):
            style = "dim" if row.name in self.ends else "bold"
            shown_cells = (known[measure] for measure in measures)
            table.add_row(_shorten(row.name, width), *shown_cells, style=style)
        return table

    def _fit(self, cells: list[dict[str, str]]) -> list[str]:
        """Return the columns for which the terminal has room; rungs only where students halve."""
        measures = [measure for measure in MEASURES if measure != "rung" or self._halves]
        for measure in LAST_MEASURES:
            if SHORTEST_NAME + 2 + _measure_width(measures, cells) <= self.console.width:
                break
            measures = [other for other in measures if other != measure]
        return measures


class RunLine:
    """Where the whole run is: a line above the grid in a terminal, a log line a stage elsewhere."""

    def __init__(self, run: RunProgress, console: Terminal) -> None:
        self.run = run
        self.console = console
        self._live: Live | None = None
        self._logged = -1

    def hear(self, event: Event) -> None:
        """Ignore a training: the grid shows it."""

    def show(self) -> None:
        """Show the line from the first stage on; without a terminal, log each new stage."""
        if self.run.number < 0:
            return
        if not self.console.file.isatty():
            if self.run.number > self._logged:
                self._logged = self.run.number
                logger.info("%s", str(self.run))
        elif self._live is None:
            self._live = Live(
                get_renderable=lambda: Text(str(self.run), style="bold cyan", overflow="ellipsis"),
                console=self.console,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
            )
            self._live.start(refresh=True)

    def close(self) -> None:
        """Remove the line."""
        if self._live is not None:
            self._live.stop()
            self._live = None


@contextmanager
def shown(store: Path, *others: Watcher, run: RunProgress | None = None) -> Iterator[None]:
    """Show all trainings in a store inside the block: in the terminal, and to other watchers.

    Above them stands at which stage the whole run is, where one is given.
    """
    line = [] if run is None else [RunLine(run, terminal)]
    with (
        follow(store, [*line, LiveGrid(terminal), *others]),
        nullcontext() if run is None else following(run),
    ):
        yield


def _measure_width(measures: list[str], cells: list[dict[str, str]]) -> int:
    """Return the width of columns in characters, with the space before each."""
    return sum(2 + max(len(measure), *(len(row[measure]) for row in cells)) for measure in measures)


def _cells(row: TrainingStep, end: str | None) -> dict[str, str]:
    """Return the table cells of a training, which is running unless ``end`` says how it ended."""
    left = "–" if row.seconds_left is None else say_time(row.seconds_left)
    return {
        "rung": row.rung,
        "step": f"{row.step} of {row.steps}" if row.steps else "–",
        "loss": say_value(row.loss),
        "accuracy": say_value(row.accuracy),
        "rows/s": say_value(row.rows_per_s),
        "left": end or left,
    }


def _shorten(name: str, width: int) -> str:
    """Return a name cut to a width in its middle: both its ends distinguish students."""
    if len(name) <= width:
        return name
    end = width // 2
    return f"{name[: width - end - 1]}…{name[-end:]}"
