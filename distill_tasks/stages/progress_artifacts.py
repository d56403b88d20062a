"""Progress artifacts: Prefect shows how far each training of a flow run is."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext

from distill_tasks.core.errors import say_error
from distill_tasks.core.live import shown
from distill_tasks.core.markup import as_markdown
from distill_tasks.core.progress import Event, TrainingEnd, TrainingStep
from distill_tasks.core.run_progress import RunProgress, Stage

logger = logging.getLogger("potstill")

SECONDS_BETWEEN_UPDATES = 5.0


def show_trainings(work_dir: str, stages: Sequence[Stage] = ()) -> AbstractContextManager[None]:
    """Show the stages of a run and all trainings in its store, in the terminal and in Prefect.

    Trainings of tasks that run in other processes are shown too. Without ``stages`` they are alone.
    """
    run = RunProgress(stages, Path(work_dir)) if stages else None
    if FlowRunContext.get() is None:
        return shown(Path(work_dir), run=run)
    return shown(Path(work_dir), ProgressArtifacts(), run=run)


class ProgressArtifacts:
    """Keeps one progress artifact of each training, all rungs of a student being one."""

    def __init__(self) -> None:
        self._made: dict[str, UUID] = {}
        self._latest: dict[str, TrainingStep] = {}
        self._unwritten: set[str] = set()
        self._next = 0.0

    def hear(self, event: Event) -> None:
        """Take in one step."""
        if isinstance(event, TrainingEnd) or event.begins:
            return
        before = self._latest.get(event.name)
        self._latest[event.name] = event if before is None else event.after(before)
        self._unwritten.add(event.name)

    def show(self) -> None:
        """Write what is new where the last write was a while ago."""
        if self._unwritten and time.monotonic() >= self._next:
            self.close()
            self._next = time.monotonic() + SECONDS_BETWEEN_UPDATES

    def close(self) -> None:
        """Write what is not yet written; where Prefect does not take it, trainings go on."""
        while self._unwritten:
            step = self._latest[self._unwritten.pop()]
            try:
                self._write(step)
            except Exception as error:  # noqa: BLE001  # one that is not taken is no other's fault
                logger.warning("progress of %s is not in Prefect: %s", step.name, say_error(error))

    def _write(self, step: TrainingStep) -> None:
        about = as_markdown(str(step))
        if step.name in self._made:
            update_progress_artifact(self._made[step.name], step.percent, about)
            return
        found = create_progress_artifact(step.percent, name_key(step.name), about)
        self._made[step.name] = cast("UUID", found)


def name_key(name: str) -> str:
    """Return the key of a training's artifact, of lowercase letters, digits and dashes alone."""
    return "training-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
