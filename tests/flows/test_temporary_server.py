"""Prefect's temporary server that starts beside the checks of a command."""

import os
import subprocess
import sys

import pytest

BEGUN = """
from flows.temporary_server import TemporaryServer, server_beside

with server_beside():
    server = TemporaryServer()
    begun = server.begun
server.start()
with server_beside():
    pass
print(server.server_process is begun, begun.poll())
server.stop()
print(begun.poll() is not None)
"""
FAILED = """
from flows.temporary_server import TemporaryServer, server_beside

try:
    with server_beside():
        begun = TemporaryServer().begun
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print(begun.poll() is not None, TemporaryServer().running)
"""

pytestmark = pytest.mark.slow


def run_alone(script, folder):
    """Run a script that has no server of Prefect, and return what it prints."""
    environment = os.environ | {"PREFECT_HOME": str(folder)}
    environment.pop("PREFECT_API_URL", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_flow_takes_the_server_that_began_beside_the_checks(tmp_path):
    assert run_alone(BEGUN, tmp_path) == ["True", "None", "True"]


def test_a_check_that_fails_ends_the_server(tmp_path):
    assert run_alone(FAILED, tmp_path) == ["True", "False"]
