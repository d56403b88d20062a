"""Checks before a command starts its work: configuration, servers, whether there is any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill_tasks.config import DistillConfig, load_config
from distill_tasks.core.errors import InputError
from distill_tasks.core.overrides import parse_overrides
from flows.answers import Answer, answer_nothing_to_do
from flows.printing import out


def load_written(path: Path, texts: Sequence[str] | None) -> DistillConfig:
    """Read a configuration with what `--set` says in place of some of its settings."""
    return load_config(path, parse_overrides(texts or ()))


def load_checked(
    path: Path, accept_licence: bool = False, texts: Sequence[str] | None = None
) -> DistillConfig:
    """Read and check a configuration, before a flow and its server are started."""
    settings = load_written(path, texts)
    settings.teacher.check_licence(accept_licence)
    check_prefect()
    from flows.temporary_server import server_beside

    with server_beside():
        from distill_tasks.stages.prepare import check_config

        check_config(settings)
    return settings


def check_prefect() -> None:
    """Raise InputError if a server of Prefect is named and does not answer.

    Prefect Cloud is left to Prefect, and where no server is named a flow starts its own.
    """
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = PREFECT_API_URL.value()
    if not url:
        return
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": 5.0}, sync_client=True) as client,
    ):
        failure = client.api_healthcheck() if client.server_type is ServerType.SERVER else None
    if failure is not None:
        reason = str(failure).splitlines()[0]
        raise InputError(
            f"PREFECT_API_URL {url} cannot be reached: {reason}. Start that server, correct the "
            "address, or unset it for a server of the run's own."
        )


def say_nothing_to_do(command: str, message: str, json: bool) -> Answer:
    """Return that there is nothing to do yet, and say why unless JSON is asked for."""
    if not json:
        out.say(message)
    return answer_nothing_to_do(command, message)
