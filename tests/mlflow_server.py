"""A real MLflow server in a process of its own, with its artifacts behind HTTP, as teams run it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 180
"""How long a server may take to answer its first ping on a busy machine."""
BASIC_AUTH = ("--app-name", "basic-auth")
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Jobs of generative AI, for which a server would keep five more processes."""


@contextmanager
def serve_mlflow(
    folder: Path,
    database: str | None = None,
    options: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[str]:
    """Serve MLflow over a database, by default sqlite in a folder; yield its address.

    Served again from the same folder, at the same port, it has what it had when it was killed.
    """
    port = port or find_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", database or f"sqlite:///{folder}/server.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
        *options,
    ]
    known = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    log = folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=known | NO_JOBS | dict(environment or {}),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(server, f"{address}/health", log)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers too
        server.wait()


def find_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(server: subprocess.Popen[bytes], ping: str, log: Path) -> None:
    """Wait for a server's first answer; one that ends before is shown by its log."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_up(ping):
        assert server.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def is_up(ping: str) -> bool:
    """Return whether an address answers."""
    try:
        with urllib.request.urlopen(ping, timeout=5) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it wants to know who asks
    except OSError:
        return False
