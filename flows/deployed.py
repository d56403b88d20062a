"""What flows need where a worker runs them: a configuration by path, a name, store and log."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import AfterValidator, Discriminator, PlainValidator, Tag

from distill_tasks.config import DistillConfig, load_config, parse_config
from distill_tasks.core.credentials import mask_credentials, refuse_credentials
from distill_tasks.core.errors import InputError
from distill_tasks.core.overrides import refuse_secrets
from distill_tasks.core.store import Store
from distill_tasks.stages.progress_artifacts import show_trainings
from flows.flow_runs import Wait, begin_run
from flows.turns import turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from distill_tasks.core.run_progress import Stage

logger = logging.getLogger("potstill")


def _is_path(written: object) -> str:
    return "path" if isinstance(written, str | Path) else "whole"


def _keep_as_written(config: DistillConfig | dict[str, Any]) -> DistillConfig | dict[str, Any]:
    """Leave a configuration to the flow, which validates it with its overrides.

    Prefect keeps parameters, so credentials are refused here.
    """
    if not isinstance(config, DistillConfig | dict):
        raise ValueError("must be a configuration or the path of one")
    if isinstance(config, dict):
        refuse_credentials(config)
    return config


Overrides = Annotated[dict[str, Any], AfterValidator(refuse_secrets)]
"""Values by dotted keys that a configuration gets anew."""


ConfigOrPath = Annotated[
    Annotated[
        DistillConfig | dict[str, Any],
        PlainValidator(_keep_as_written, json_schema_input_type=DistillConfig),
        Tag("whole"),
    ]
    | Annotated[Path, Tag("path")],
    Discriminator(_is_path),
]
"""A configuration, or the path of one. The discriminator has errors speak of what was meant."""


def open_config(
    config: DistillConfig | dict[str, Any] | Path | str,
    accept_licence: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> DistillConfig:
    """Return a configuration with its overrides, read from the working directory if it is a path.

    Raises InputError if one of them is not allowed, or if the teacher's licence asks to be accepted
    and is not.
    """
    found = _read(config, overrides)
    found.teacher.check_licence(accept_licence)
    return found


def _read(
    config: DistillConfig | dict[str, Any] | Path | str, overrides: Mapping[str, Any] | None
) -> DistillConfig:
    if isinstance(config, dict):
        return parse_config(config, "the configuration", overrides)
    if not isinstance(config, DistillConfig):
        return load_config(Path(config), overrides)
    return parse_config(config.model_dump(), config.name, overrides) if overrides else config


def name_run() -> str:
    """Return the name of the present flow run: that of its configuration, or of a bad one."""
    given = flow_run.parameters
    config = given["config"]
    try:
        return open_config(config, True, given.get("overrides")).name
    except InputError:  # the flow says it
        return str(config.get("name", "?")) if isinstance(config, dict) else Path(config).name


@contextmanager
def working(
    config: DistillConfig,
    command: str,
    wait_minutes: float,
    stages: Sequence[Stage],
    model: str | None = None,
) -> Iterator[None]:
    """Hold the store for a flow inside the block, and show its log lines and how far it is.

    ``model`` is the registered model that only this run may distil meanwhile. Raises InputError if
    another run still works in the store, or on the model, after so many minutes.
    """
    with (
        alone(config, f"{command} {config.name}", wait_minutes, model),
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
def alone(
    config: DistillConfig, work: str, wait_minutes: float, model: str | None = None
) -> Iterator[None]:
    """Wait until no other run works in the store or on the model, then keep them from it."""
    wait, deadline = Wait(), time.monotonic() + 60 * wait_minutes
    with show_lines():
        begin_run(work)
        with (
            nullcontext() if model is None else turn(model, wait_minutes, wait.tell),
            Store(config.work_dir).lock(work, _minutes_until(deadline), wait.tell),
        ):
            wait.end()
            yield


def _minutes_until(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0) / 60


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
