"""Prefect's temporary server that starts beside the checks of a command."""

import os
import subprocess
import sys

import pytest
from processes import is_there, wait_until

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
import sys, time
from flows.temporary_server import TemporaryServer, server_beside

try:
    with server_beside():
        begun = TemporaryServer().begun
        time.sleep(float(sys.argv[1]))
        failed = time.monotonic()
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print(begun.pid, TemporaryServer().running, time.monotonic() - failed < 1)
"""

pytestmark = pytest.mark.slow


def run_alone(script, folder, *arguments):
    """Run a script that has no server of Prefect, and return what it prints."""
    environment = os.environ | {"PREFECT_HOME": str(folder)}
    environment["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"  # as the command line has it
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    return done.stdout.split()


def test_a_flow_takes_the_server_that_began_beside_the_checks(tmp_path):
    assert run_alone(BEGUN, tmp_path) == ["True", "None", "True"]


@pytest.mark.parametrize("after_s", [1, 5])
def test_a_check_that_fails_waits_for_no_server_and_leaves_whole_tables(tmp_path, after_s):
    begun, *rest = run_alone(FAILED, tmp_path, after_s)
    assert rest == ["False", "True"]
    wait_until(lambda: not is_there(begun), 60)
    assert run_alone(BEGUN, tmp_path) == ["True", "None", "True"]
