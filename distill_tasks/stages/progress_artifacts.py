"""Progress artifacts: Prefect shows how far a flow run is, and each training of it."""

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

from distill_tasks.core.errors import say_error, shortlist
from distill_tasks.core.live import shown
from distill_tasks.core.markup import as_markdown
from distill_tasks.core.progress import Event, TrainingEnd, TrainingStep, Watcher
from distill_tasks.core.run_progress import RunProgress, Stage
from distill_tasks.core.run_status import FlowRun, StatusFile
from distill_tasks.stages.flow_run import current_flow_run, link_flow_run

logger = logging.getLogger("potstill")

SECONDS_BETWEEN_UPDATES = 5.0
RUN = "run"
"""Key of the artifact of the whole run."""


def show_trainings(work_dir: str, stages: Sequence[Stage] = ()) -> AbstractContextManager[None]:
    """Show the stages of a run and all trainings in its store, in the terminal and in Prefect.

    Trainings of tasks that run in other processes are shown too. Without ``stages`` they are alone.
    """
    store = Path(work_dir)
    run = RunProgress(stages, store) if stages else None
    watchers: list[Watcher] = []
    if run is not None:
        flow_run = current_flow_run()
        known = None if flow_run is None else FlowRun(flow_run, link_flow_run())
        watchers.append(StatusFile(run, store, known))
    if FlowRunContext.get() is not None:
        watchers += [ProgressArtifacts(), *([] if run is None else [RunArtifact(run)])]
    return shown(store, *watchers, run=run)


class RunArtifact:
    """Keeps the one progress artifact of a run: its stage, and the candidates that train.

    A state of the flow run would be seen sooner, but each one that is Running counts as a further
    attempt, which uses up the retries of whoever gave the flow any.
    """

    def __init__(self, run: RunProgress) -> None:
        self.run = run
        self._training: dict[str, None] = {}
        """Names, in the order in which they began."""
        self._made: UUID | None = None
        self._written = ""
        self._next = 0.0

    def hear(self, event: Event) -> None:
        """Take in that a training begins, goes on or ends."""
        if isinstance(event, TrainingEnd):
            self._training.pop(event.name, None)
        else:
            self._training[event.name] = None

    def show(self) -> None:
        """Write where the run is, if that is new and the last write was a while ago."""
        if self.run.number >= 0 and time.monotonic() >= self._next:
            self._write(self.run.percent, self._describe())
            self._next = time.monotonic() + SECONDS_BETWEEN_UPDATES

    def close(self) -> None:
        """Write at which stage the run ended."""
        number, stages = self.run.number, self.run.stages
        if number < 0:
            return
        percent = 100.0 if number + 1 == len(stages) else self.run.percent
        ended = f"ended at stage {number + 1} of {len(stages)}: {stages[number].about}"
        self._write(percent, as_markdown(ended))

    def _describe(self) -> str:
        training = f"; training {shortlist(self._training)}" if self._training else ""
        return as_markdown(f"{self.run}{training}")

    def _write(self, percent: float, about: str) -> None:
        if about == self._written:
            return
        try:
            if self._made is None:
                self._made = cast("UUID", create_progress_artifact(percent, RUN, about))
            else:
                update_progress_artifact(self._made, percent, about)
            self._written = about
        except Exception as error:  # noqa: BLE001  # a run must not end because it is not shown
            logger.warning("where the run is, is not in Prefect: %s", say_error(error))


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
