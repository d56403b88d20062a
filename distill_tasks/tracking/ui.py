"""MLflow's pages on a database: their address, and the process that serves them."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING
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


def serve_ui(config: TrackingConfig) -> None:
    """Serve the pages on a database where `tracking.ui` says, until the process is interrupted.

    Raises InputError if another program has that port.
    """
    address = urlsplit(config.ui_address)
    host, port = address.hostname or "127.0.0.1", address.port or HTTP_PORT
    _check_free(host, port)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", config.uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    subprocess.run(command, check=False)  # noqa: S603  # our own arguments


def _check_free(host: str, port: int) -> None:
    with socket.socket() as asking:
        if asking.connect_ex((host, port)) == 0:
            raise InputError(
                f"Port {port} of {host} is taken. End what serves there, or give another address "
                f"as tracking.ui, such as http://127.0.0.1:{port + 1}."
            )
