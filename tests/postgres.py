"""A PostgreSQL of this machine, for the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mlflow_server import find_port


@contextmanager
def serve_postgres() -> Iterator[str]:
    """Run a PostgreSQL of this machine on a port of its own; yield the address of its database."""
    if shutil.which("pg_config") is None:
        pytest.skip("PostgreSQL is not installed; .ci/run installs it")
    found = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
    programs, port = found.stdout.strip(), find_port()
    user = {"user": "postgres"} if os.getuid() == 0 else {}  # it refuses to run as root
    with tempfile.TemporaryDirectory() as data:
        if user:
            shutil.chown(data, "postgres")
        start = [f"{programs}/initdb", "-D", data, "-U", "potstill", "-A", "trust"]
        subprocess.run(start, **user, cwd=data, check=True, stdout=subprocess.DEVNULL)
        serve = [f"{programs}/postgres", "-D", data, "-p", str(port), "-k", data]
        server = subprocess.Popen(
            [*serve, "-c", "listen_addresses=127.0.0.1"],
            **user,
            cwd=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            reach = ["-h", "127.0.0.1", "-p", str(port), "-U", "potstill"]
            while subprocess.run([f"{programs}/pg_isready", *reach], check=False).returncode:
                assert server.poll() is None
                time.sleep(0.1)
            subprocess.run([f"{programs}/createdb", *reach, "mlflow"], check=True)
            yield f"postgresql+psycopg2://potstill@127.0.0.1:{port}/mlflow"
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM waits for connections of this very process
            server.wait()
