"""The Prefect server that the environment names, checked before it is asked anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import prefect
from packaging.version import Version
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL

from distill_tasks.core.errors import InputError
from flows.commands.checks import check_prefect

logger = logging.getLogger("potstill")


@contextmanager
def open_server(held: str) -> Iterator[SyncPrefectClient]:
    """Yield a client of the server that holds something, such as deployments.

    Raises InputError if none is named, if it does not answer, or if it speaks another API.
    """
    if not PREFECT_API_URL.value():
        raise InputError(
            f"PREFECT_API_URL is not set, so there is no server that holds {held}. Set it, as in "
            "http://127.0.0.1:4200/api."
        )
    check_prefect()
    with get_client(sync_client=True) as client:
        if client.server_type is ServerType.SERVER:
            compare_versions(client.api_version(), prefect.__version__)
        yield client


def compare_versions(server: str, here: str) -> None:
    """Warn of a server of another version; raise InputError if its API is another one too."""
    if Version(server).major != Version(here).major:
        raise InputError(
            f"Prefect here is {here}, the server's is {server}: they do not speak the same API. "
            "Install the server's major version here, or upgrade the server."
        )
    if Version(server) != Version(here):
        logger.warning("Prefect here is %s, the server's is %s: keep them alike", here, server)
