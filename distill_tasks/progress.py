"""Progress of long work: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

logger = logging.getLogger("potstill")

SECONDS_BETWEEN_LINES = 15.0


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
        if sys.stderr.isatty():
            self._bars = Bars(
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self.unit),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.add_task(self.description, total=total)
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
