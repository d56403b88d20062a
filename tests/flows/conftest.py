"""A real Prefect server for the tests of flows, started once."""

from __future__ import annotations

import gc
import shutil

import prefect.main  # noqa: F401  # sets logging up on a stream that no test closes
import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from distill_tasks.config import TrackingConfig
from distill_tasks.tracking import check_tracking


@pytest.fixture(scope="session")
def prefect_server():
    """Prefect's own harness: a temporary database behind a real server."""
    settings = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # saves a second of sleep for each run
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(settings):
        yield


@pytest.fixture(autouse=True)
def small_heap():
    """Keep what is loaded out of the collections after each stage: half a second each here."""
    gc.freeze()


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory):
    """A fresh MLflow database: its 60 migrations take seconds, a copy of it none."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    check_tracking(TrackingConfig(uri=f"sqlite:///{path}"))
    return path


@pytest.fixture(autouse=True)
def mlflow_database(empty_mlflow, tmp_path):
    """The database that `written` names."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")


@pytest.fixture
def quick(written):
    """The small configuration with a teacher that is ready and students that train in no time."""
    base = written["teacher"]["base"]
    teacher = {"kind": "transformers", "model": base, "max_length": 16}
    students = [{"family": "bag_of_words", "max_features": [50, 200]}]
    return written | {"teacher": teacher, "students": students, "evaluate": {}}
