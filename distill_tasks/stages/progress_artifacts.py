"""Progress artifacts: Prefect shows how far each training of a flow run is."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext

from distill_tasks.core.errors import say_error
from distill_tasks.core.markup import as_markdown
from distill_tasks.core.progress import TrainingStep, heard_by

logger = logging.getLogger("potstill")

SECONDS_BETWEEN_UPDATES = 5.0

_made: dict[tuple[UUID, str], UUID] = {}
"""The artifact of a training, by flow run and name: all rungs of a student have the same one."""


@contextmanager
def kept_in_prefect() -> Iterator[None]:
    """Keep one progress artifact of each training in the block; outside a flow run none."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    artifacts = ProgressArtifacts(context.flow_run.id)
    try:
        with heard_by(artifacts):
            yield
    finally:
        artifacts.write()


class ProgressArtifacts:
    """Writes how far trainings are, seldom enough for them not to feel it."""

    def __init__(self, flow_run: UUID) -> None:
        self.flow_run = flow_run
        self._latest: dict[str, TrainingStep] = {}
        self._unwritten: set[str] = set()
        self._next = 0.0

    def __call__(self, step: TrainingStep) -> None:
        """Take in one step, and write it where the last write was a while ago."""
        before = self._latest.get(step.name)
        self._latest[step.name] = step if before is None else step.after(before)
        self._unwritten.add(step.name)
        if time.monotonic() >= self._next:
            self.write()
            self._next = time.monotonic() + SECONDS_BETWEEN_UPDATES

    def write(self) -> None:
        """Write what is not yet written; where Prefect does not take it, trainings go on."""
        while self._unwritten:
            step = self._latest[self._unwritten.pop()]
            try:
                _write(self.flow_run, step)
            except Exception as error:  # noqa: BLE001  # what is only shown must not end a training
                logger.warning("progress of %s is not in Prefect: %s", step.name, say_error(error))


def _write(flow_run: UUID, step: TrainingStep) -> None:
    if (made := _made.get((flow_run, step.name))) is not None:
        update_progress_artifact(made, step.percent, as_markdown(str(step)))
        return
    key = name_key(step.name)
    about = as_markdown(str(step))
    found = create_progress_artifact(step.percent, key=key, description=about)
    _made[flow_run, step.name] = cast("UUID", found)


def name_key(name: str) -> str:
    """Return the key of a training's artifact, of lowercase letters, digits and dashes alone."""
    return "training-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
