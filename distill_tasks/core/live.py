"""Progress as people see it: a bar or one table of the grid in a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.markup import as_terminal
from distill_tasks.core.progress import (
    Event,
    TrainingEnd,
    TrainingStep,
    Watcher,
    follow,
)
from distill_tasks.core.terminal import Terminal
from distill_tasks.core.wording import say_time, say_value

logger = logging.getLogger("potstill")

SECONDS_BETWEEN_LINES = 15.0
REFRESHES_PER_S = 2.0
LINES_AROUND = 6
"""Terminal lines that are left free around the rows of the table."""
MEASURES = ("rung", "step", "loss", "accuracy", "rows/s", "left")
SHORTEST_NAME = 20

terminal = Terminal(stderr=True)
"""The one console for live displays and log lines, so that they never overwrite each other."""


class LogLines(logging.Handler):
    """Writes log lines to the terminal, above a live display if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
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
        beside = sum(2 + max(map(len, column)) for column in zip(MEASURES, *cells, strict=True))
        width = max(SHORTEST_NAME, self.console.width - beside - 2)
        table = Table(box=SIMPLE_HEAD, caption=caption, pad_edge=False, collapse_padding=True)
        table.add_column("candidate", min_width=SHORTEST_NAME, no_wrap=True)
        for measure in MEASURES:
            table.add_column(measure, justify="right", no_wrap=True)
        for row, known in zip(rows, cells, strict=True):
            style = "dim" if row.name in self.ends else "bold"
            table.add_row(_shorten(row.name, width), *known, style=style)
        return table


def shown(store: Path, *others: Watcher) -> AbstractContextManager[None]:
    """Show all trainings in a store inside the block: in the terminal, and to other watchers."""
    return follow(store, [LiveGrid(terminal), *others])


def _cells(row: TrainingStep, end: str | None) -> list[str]:
    """Return the table cells of a training, which is running unless ``end`` says how it ended."""
    left = "–" if row.seconds_left is None else say_time(row.seconds_left)
    return [
        row.rung,
        f"{row.step} of {row.steps}" if row.steps else "–",
        say_value(row.loss),
        say_value(row.accuracy),
        say_value(row.rows_per_s),
        end or left,
    ]


def _shorten(name: str, width: int) -> str:
    """Return a name cut to a width in its middle: both its ends distinguish students."""
    if len(name) <= width:
        return name
    end = width // 2
    return f"{name[: width - end - 1]}…{name[-end:]}"
