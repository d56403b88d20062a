"""A real Prefect server for the tests of flows, started once."""

from __future__ import annotations

import shutil

import prefect.main  # noqa: F401  # sets logging up on a stream that no test closes
import pytest
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    temporary_settings,
)
from samples import make_rows
from small_distillation import save_answers

from distill_tasks.config import TrackingConfig
from distill_tasks.tracking.store import check_tracking


@pytest.fixture(scope="session")
def prefect_server():
    """Prefect's own harness: a temporary database behind a real server."""
    from prefect.testing.utilities import prefect_test_harness  # takes the whole server in

    settings = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # saves a second of sleep for each run
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=120):
        yield


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
def quick(written, tmp_path):
    """The small configuration with saved answers and students that train in no time."""
    save_answers([make_rows(300, seed=1)], tmp_path / "answers.parquet", wrong=0.05)
    teacher = {"kind": "saved", "path": str(tmp_path / "answers.parquet")}
    students = [{"family": "bag_of_words", "max_features": [50, 200]}]
    return written | {"teacher": teacher, "students": students, "evaluate": {}}


@pytest.fixture
def ready_teacher(tiny_base):
    """The settings of a teacher that has weights here, which takes torch to measure."""
    return {"kind": "transformers", "model": str(tiny_base), "max_length": 16}
