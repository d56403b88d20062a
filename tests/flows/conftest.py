"""A real Prefect server for the tests of flows, started once."""

from __future__ import annotations

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def prefect_server():
    """Prefect's own harness: a temporary database behind a real server."""
    settings = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # saves a second of sleep for each run
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(settings):
        yield


@pytest.fixture
def quick(written):
    """The small configuration with a teacher that is ready and students that train in no time."""
    base = written["teacher"]["base"]
    teacher = {"kind": "transformers", "model": base, "max_length": 16}
    students = [{"family": "bag_of_words", "max_features": [50, 200]}]
    return written | {"teacher": teacher, "students": students, "evaluate": {}}
