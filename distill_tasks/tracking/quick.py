"""A few requests to MLflow that must be over soon, whether its server answers or not."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.environment import variables
from distill_tasks.core.errors import PotstillError
from distill_tasks.core.retries import RETRIES, shorten
from distill_tasks.tracking.store import find_sqlite_file, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

    from distill_tasks.config import TrackingConfig

PATIENCE_S = 2
"""How long one answer is waited for."""
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


class UnansweredError(PotstillError):
    """MLflow did not answer, in one line."""


@contextmanager
def asked_quickly(config: TrackingConfig) -> Iterator[MlflowClient | None]:
    """Yield a client for requests that are not repeated; None where nothing was tracked ever.

    Raises UnansweredError as soon as one of them is not answered in time.
    """
    database = find_sqlite_file(config.uri)
    if database is not None and not database.is_file():
        yield None
        return
    check_listening(config.uri)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    limits = {RETRIES: "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(PATIENCE_S)}
    try:
        with variables(limits):
            yield open_store(config)
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise _make_error(config.uri, shorten(error)) from None


def check_listening(uri: str) -> None:
    """Raise UnansweredError if nobody listens at an address; MLflow would try a database long."""
    address = urlsplit(uri)
    port = address.port or PORTS.get(address.scheme.partition("+")[0])
    if not address.hostname or port is None:
        return
    try:
        socket.create_connection((address.hostname, port), timeout=PATIENCE_S).close()
    except OSError as error:
        raise _make_error(uri, error.strerror or str(error)) from None


def _make_error(uri: str, reason: str) -> UnansweredError:
    return UnansweredError(f"MLflow at {mask_credentials(uri)} does not answer: {reason}")
