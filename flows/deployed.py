"""What flows need where a worker runs them: a configuration by path, a name, store and log."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import Discriminator, Tag

from distill_tasks.config import DistillConfig, load_config
from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError
from distill_tasks.core.store import Store
from distill_tasks.stages.progress_artifacts import show_trainings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distill_tasks.core.run_progress import Stage

logger = logging.getLogger("potstill")


def _is_path(written: object) -> str:
    return "path" if isinstance(written, str | Path) else "whole"


ConfigOrPath = Annotated[
    Annotated[DistillConfig, Tag("whole")] | Annotated[Path, Tag("path")],
    Discriminator(_is_path),
]
"""A configuration, or the path of one. The discriminator has errors speak of what was meant."""


def open_config(config: DistillConfig | Path | str, accept_licence: bool = False) -> DistillConfig:
    """Return a configuration, read from the working directory where its path was given.

    Raises InputError if the teacher's licence asks to be accepted and is not.
    """
    found = config if isinstance(config, DistillConfig) else load_config(Path(config))
    found.teacher.check_licence(accept_licence)
    return found


def name_run() -> str:
    """Return the name of the present flow run: that of its configuration, or of a bad file."""
    config = flow_run.parameters["config"]
    try:
        return open_config(config, accept_licence=True).name
    except InputError:  # the flow says it
        return Path(config).name


@contextmanager
def working(
    config: DistillConfig, command: str, wait_minutes: float, stages: Sequence[Stage]
) -> Iterator[None]:
    """Hold the store for a flow inside the block, and show its log lines and how far it is.

    Raises InputError if another run still works in the store after so many minutes.
    """
    with (
        Store(config.work_dir).lock(f"{command} {config.name}", wait_minutes),
        show_lines(),
        show_trainings(config.work_dir, stages),
    ):
        yield


class _MaskedLines(APILogHandler):
    """Sends log lines to Prefect, without the passwords in addresses that libraries repeat."""

    def prepare(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return a line as Prefect keeps it."""
        kept = super().prepare(record)
        return kept | {"message": mask_credentials(kept["message"])}


@contextmanager
def show_lines() -> Iterator[None]:
    """Have the log lines of Potstill reach the flow run's log inside the block.

    Prefect gives the loggers of `PREFECT_LOGGING_EXTRA_LOGGERS` its handler and no level, so that
    they would drop everything below a warning; the handler is added here where that is unset.
    Beside the handlers of the command line it is added only for a server that outlives the command.
    """
    level, handler = logger.level, None
    told = any(isinstance(one, APILogHandler) for one in logger.handlers)
    if not told and (PREFECT_API_URL.value() or not logger.handlers):
        handler = _MaskedLines()
        logger.addHandler(handler)
    if level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        if handler is not None:
            logger.removeHandler(handler)
