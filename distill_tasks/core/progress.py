"""Progress of long work: a bar or one table of the grid in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.markup import as_terminal
from distill_tasks.core.terminal import Terminal

logger = logging.getLogger("potstill")

SECONDS_BETWEEN_LINES = 15.0
REFRESHES_PER_S = 2.0
LINES_AROUND = 6
"""Of a terminal, beside the rows of the table."""
MEASURES = ("rung", "step", "loss", "accuracy", "rows/s", "left")
SHORTEST_NAME = 20
LOSSES = 50
"""A training tells its loss so often, beside the ends of its epochs."""
UNNAMED = "training"
"""What trains where nobody said its name."""

terminal = Terminal(stderr=True)
"""The one console that everything live and every log line goes through, so that none is torn."""


class LogLines(logging.Handler):
    """Writes log lines to the terminal, above whatever is live there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            terminal.print(mask_credentials(self.format(record)), soft_wrap=True)
        except Exception:  # noqa: BLE001  # as every handler: a log line must not end the work
            self.handleError(record)


class Progress:
    """Shows how far one piece of long work has come."""

    def __init__(self, description: str, unit: str) -> None:
        self.description = description
        self.unit = unit
        self._bars: Bars | None = None

    def start(self, total: int) -> None:
        """Begin with the number of units that the whole work takes."""
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
        """Show that so many units are done."""
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=done)
        elif time.monotonic() >= self._next_line:
            logger.info("%s: %d of %d %s", self.description, done, self.total, self.unit)
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def stop(self) -> None:
        """End the display; a bar is wiped away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


@dataclass(frozen=True)
class TrainingStep:
    """How far one training is."""

    name: str
    """Of the candidate, or of whatever else trains."""
    step: int = 0
    steps: int = 0
    """Of the whole training; 0 where it takes none or its first is not yet near."""
    share: float = 1.0
    """Of the whole training, where this part of it ends: the rung it is on."""
    loss: float | None = None
    """Mean of the steps since it was last told; told at some steps alone."""
    accuracy: float | None = None
    """On validation, told at the end of an epoch."""
    rows_per_s: float | None = None
    seconds_left: float | None = None
    """Until the end of this part, at the pace it has."""

    @property
    def percent(self) -> float:
        """How much of the whole training is done."""
        return 100 * self.step / self.steps if self.steps else 0.0

    @property
    def rung(self) -> str:
        """The share of the training at which this part of it ends."""
        return f"{100 * self.share:.3g} %"

    def after(self, before: TrainingStep) -> TrainingStep:
        """Return this step with what an earlier one told and this one does not.

        A training that begins knows nothing of an earlier one of its name.
        """
        if self.step == 0:
            return self
        return replace(
            self,
            loss=before.loss if self.loss is None else self.loss,
            accuracy=before.accuracy if self.accuracy is None else self.accuracy,
            rows_per_s=before.rows_per_s if self.rows_per_s is None else self.rows_per_s,
        )

    def __str__(self) -> str:
        """Return all that is known, in one line."""
        known = [
            f"step {self.step} of {self.steps}",
            f"rung {self.rung}" if self.share < 1 else "",
            "" if self.loss is None else f"loss {_say(self.loss)}",
            "" if self.accuracy is None else f"accuracy {_say(self.accuracy)}",
            "" if self.rows_per_s is None else f"{_say(self.rows_per_s)} rows/s",
            f"{say_time(self.seconds_left)} left" if self.seconds_left else "",
        ]
        return f"{self.name}: {', '.join(part for part in known if part)}"


Listener = Callable[[TrainingStep], None]

_name: ContextVar[str | None] = ContextVar("name", default=None)
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


class LiveGrid:
    """One row for each training: a table in a terminal, a line now and then elsewhere."""

    def __init__(self, console: Terminal) -> None:
        self.console = console
        self.rows: dict[str, TrainingStep] = {}
        """The latest of each training, in the order in which they first began."""
        self.ends: dict[str, str] = {}
        """How each training ended that is not under way."""
        self._latest: list[str] = []
        """The names of trainings, that which began or went on last being the last."""
        self._running: set[str] = set()
        self._live: Live | None = None
        self._next_line = 0.0

    def begin(self, name: str) -> None:
        """Show a training that begins or goes on, and in a terminal the whole grid with it."""
        self.ends.pop(name, None)
        self.rows.setdefault(name, TrainingStep(name))
        self._latest = [*(other for other in self._latest if other != name), name]
        if not self._running:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            if self.console.file.isatty():
                self._live = Live(
                    get_renderable=self.table,
                    console=self.console,
                    refresh_per_second=REFRESHES_PER_S,
                    transient=True,
                )
                self._live.start(refresh=True)
        self._running.add(name)

    def hear(self, step: TrainingStep) -> None:
        """Take in how far a training is."""
        before = self.rows.get(step.name)
        self.rows[step.name] = step if before is None else step.after(before)
        if self._live is None and self._running and time.monotonic() >= self._next_line:
            logger.info("%s", self.rows[step.name])
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def end(self, name: str, how: Literal["done", "failed"]) -> None:
        """Show that a training is over; the table is wiped away until the next one begins."""
        stopped = how == "done" and self.rows[name].share < 1
        self.ends[name] = "stopped" if stopped else how
        self._running.discard(name)
        if not self._running and self._live is not None:
            self._live.stop()
            self._live = None

    def table(self) -> Table:
        """Return the grid as it stands, the latest of it that the terminal has lines for."""
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


grid = LiveGrid(terminal)


@contextmanager
def shown(name: str | None = None) -> Iterator[None]:
    """Show what trains in the block under a name, or as part of what an outer block shows."""
    if name is None and _name.get() is not None:
        yield
        return
    name = name or UNNAMED
    token = _name.set(name)
    grid.begin(name)
    try:
        yield
    except BaseException:
        grid.end(name, "failed")
        raise
    else:
        grid.end(name, "done")
    finally:
        _name.reset(token)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Have a listener told of every step of the trainings in the block."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


class Training:
    """Tells how far one training is; that costs microseconds a step."""

    def __init__(self, steps: int, rows_per_step: int, share: float = 1.0, done: int = 0) -> None:
        self.steps = steps
        self.rows_per_step = rows_per_step
        self.share = share
        self.done = done
        self.losses_every = math.ceil(steps / LOSSES)
        self.name = _name.get() or UNNAMED
        self._began = time.monotonic()
        self._step = done
        self._losses: list[float] = []
        self.reach(done)

    def wants_loss(self, step: int) -> bool:
        """Return whether the loss should be told at a step."""
        return step % self.losses_every == 0

    def take(self, loss: float, ends_epoch: bool = False) -> None:
        """Tell that one more step is done; its loss counts in the mean that is told next."""
        self._step += 1
        self._losses.append(loss)
        mean = None
        if ends_epoch or self.wants_loss(self._step):
            mean = sum(self._losses) / len(self._losses)
            self._losses.clear()
        self.reach(self._step, mean)

    def reach(self, step: int, loss: float | None = None, accuracy: float | None = None) -> None:
        """Tell that a step is done; loss and accuracy where they are known there."""
        taken, seconds = step - self.done, time.monotonic() - self._began
        pace = left = None
        if taken > 0 and seconds > 0:
            pace = taken * self.rows_per_step / seconds
            left = max(0, math.ceil(self.share * self.steps) - step) * seconds / taken
        told = TrainingStep(self.name, step, self.steps, self.share, loss, accuracy, pace, left)
        grid.hear(told)
        for listener in _listeners.get():
            listener(told)


def say_time(seconds: float) -> str:
    """Return a time as people read it, in hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def _cells(row: TrainingStep, end: str | None) -> list[str]:
    """Return what the table says of a training that goes on, or of one that came to an end."""
    left = "–" if row.seconds_left is None else say_time(row.seconds_left)
    return [
        row.rung,
        f"{row.step} of {row.steps}" if row.steps else "–",
        _say(row.loss),
        _say(row.accuracy),
        _say(row.rows_per_s),
        end or left,
    ]


def _shorten(name: str, width: int) -> str:
    """Return a name that fits: students are told apart by both its ends."""
    if len(name) <= width:
        return name
    end = width // 2
    return f"{name[: width - end - 1]}…{name[-end:]}"


def _say(value: float | None) -> str:
    """Return a value with three digits, without an exponent where it is large."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
