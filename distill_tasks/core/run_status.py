"""A small file in the store that says where the run is that works there, for other processes."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from distill_tasks.core.progress import FOLDER, Event
from distill_tasks.core.run_progress import RunProgress

FILE = "run.json"
"""Beside the progress files of the trainings, and removed with them."""
SECONDS_BETWEEN_WRITES = 5.0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class FlowRun:
    """The Prefect flow run that a run is."""

    id: str
    link: str | None = None
    """The address of its page; None where its server has none."""


@dataclass(frozen=True)
class RunStatus:
    """Where a run is."""

    stage: str
    """What the present stage does."""
    number: int
    """Of the present stage, counted from 1."""
    stages: int
    seconds_left: float | None = None
    """Estimate for the rest of the run; None where too little is known."""
    flow_run: FlowRun | None = None
    at: str = field(default_factory=_now)
    """When this was so; UTC, ISO 8601."""


class StatusFile:
    """Keeps the file up to date while a run works."""

    def __init__(self, run: RunProgress, store: Path, flow_run: FlowRun | None = None) -> None:
        self.run = run
        self.path = store / FOLDER / FILE
        self.flow_run = flow_run
        self._written = -1
        """Number of the stage that the file names."""
        self._next = 0.0

    def hear(self, event: Event) -> None:
        """Ignore a training: its own file tells of it."""

    def show(self) -> None:
        """Write the file at each new stage, and now and then within one."""
        number, now = self.run.number, time.monotonic()
        if number < 0 or (number == self._written and now < self._next):
            return
        self._written, self._next = number, now + SECONDS_BETWEEN_WRITES
        stages = self.run.stages
        about, left = stages[number].about, self.run.seconds_left
        status = RunStatus(about, number + 1, len(stages), left, self.flow_run)
        draft = self.path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):  # it is for people alone
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(asdict(status)), encoding="utf-8")
            draft.replace(self.path)

    def close(self) -> None:
        """Leave the file: whoever follows the trainings removes it with theirs."""


def read_status(store: Path) -> RunStatus | None:
    """Return where the run in a store is; None where it has not said so.

    What a killed run wrote stays: ask first whether a run holds the store.
    """
    try:
        known = json.loads((store / FOLDER / FILE).read_text(encoding="utf-8"))
        flow_run = known.pop("flow_run")
        return RunStatus(**known, flow_run=flow_run and FlowRun(**flow_run))
    except (OSError, ValueError, KeyError, TypeError):  # none, or one of another version
        return None
