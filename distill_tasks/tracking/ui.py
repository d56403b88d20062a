"""MLflow's pages on a database: their address, and serving them."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from distill_tasks.core.errors import InputError
from distill_tasks.tracking.links import view_link
from distill_tasks.tracking.store import check_tracking, find_experiment
from distill_tasks.tracking.views import RUNS, TAG

if TYPE_CHECKING:
    from distill_tasks.config import TrackingConfig

HTTP_PORT = 80


def link_runs(config: TrackingConfig) -> str:
    """Return the address of all runs; of the list of experiments where there are none yet.

    Raises InputError if the store cannot be reached.
    """
    check_tracking(config)
    found = find_experiment(config)
    if found is None or TAG + RUNS not in found.tags:
        return f"{config.ui_address}/#/experiments?workflowType=machine_learning"
    return view_link(config.ui_address, found.experiment_id, RUNS)


def serve_ui(config: TrackingConfig) -> NoReturn:
    """Become MLflow's own server of pages on a database, where `tracking.ui` says.

    Raises InputError if another program has that port.
    """
    address = urlsplit(config.ui_address)
    host, port = address.hostname or "127.0.0.1", address.port or HTTP_PORT
    _check_free(host, port)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", config.uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  # our own arguments


def _check_free(host: str, port: int) -> None:
    with socket.socket() as asking:
        if asking.connect_ex((host, port)) == 0:
            raise InputError(
                f"Port {port} of {host} is taken. End what serves there, or give another address "
                f"as tracking.ui, such as http://127.0.0.1:{port + 1}."
            )
