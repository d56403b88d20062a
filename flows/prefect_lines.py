"""Prefect's own log lines, where they are too many and too long to read past."""

from __future__ import annotations

import logging
import time

SENDER = "prefect._internal.concurrency"
"""The logger of the thread that sends events to Prefect's server."""
SECONDS_BETWEEN_LINES = 60.0


class LostEvents(logging.Filter):
    """Counts the events that could not be sent, instead of a line with each of them whole.

    A server that is away for minutes costs one in seven seconds, of two thousand characters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.said = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a line through, but those of lost events once in a minute and in few words."""
        if "failed to process item" not in str(record.msg):
            return True
        self.lost += 1
        if time.monotonic() - self.said < SECONDS_BETWEEN_LINES:
            return False
        self.said = time.monotonic()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = "Prefect's server could not be told of %d events so far; the run goes on"
        record.args = (self.lost,)
        return True


LOST_EVENTS = LostEvents()


def shorten_lines() -> None:
    """Have Prefect's log say briefly that its server is away."""
    logging.getLogger(SENDER).addFilter(LOST_EVENTS)
