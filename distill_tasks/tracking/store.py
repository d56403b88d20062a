"""MLflow's store: whether it can be reached, and the experiment in it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.core.environment import variables
from distill_tasks.core.errors import InputError
from distill_tasks.tracking.retries import RETRIES, limit_retries, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Experiment

    from distill_tasks.config import TrackingConfig


def check_tracking(config: TrackingConfig) -> None:
    """Raise InputError if the store cannot be reached; the tables of a new one are made here."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    refusals = MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ValueError, ImportError
    try:
        with variables({RETRIES: "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}), _alone(config.uri):
            _open_sqlite(config.uri)
            _find_experiment(config)
    except refusals as error:
        raise InputError(
            f"tracking.uri {config.uri} cannot be reached: {shorten(error)}. "
            "Start that server, or use sqlite:///mlflow.db."
        ) from None


def check_experiment(config: TrackingConfig) -> None:
    """Raise InputError if the experiment was deleted: MLflow then takes no run of it."""
    found = _find_experiment(config)
    if found is not None and found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment {config.experiment!r} was deleted. Restore it with `mlflow "
            f"experiments restore --experiment-id {found.experiment_id}`, or name another one."
        )


def connect(config: TrackingConfig) -> str:
    """Point MLflow at the store and return the id of the experiment, made if new."""
    import mlflow

    open_store(config)
    with _alone(config.uri):
        found = _find_experiment(config)
        experiment_id = (
            mlflow.create_experiment(config.experiment, artifact_location=_artifacts(config.uri))
            if found is None
            else found.experiment_id
        )
    return str(mlflow.set_experiment(experiment_id=experiment_id).experiment_id)


def open_store(config: TrackingConfig) -> MlflowClient:
    """Point MLflow at the store, its registry too, whatever address the environment names."""
    import mlflow

    limit_retries()
    mlflow.set_tracking_uri(config.uri)
    mlflow.set_registry_uri(config.uri)
    return mlflow.MlflowClient(config.uri)


def _artifacts(tracking_uri: str) -> str | None:
    """Return the folder for artifacts beside a sqlite file; a server decides for itself."""
    database = _sqlite_file(tracking_uri)
    return None if database is None else (database.parent / "mlartifacts").as_uri()


def _sqlite_file(tracking_uri: str) -> Path | None:
    """Return the file of a sqlite database; None for all that is none."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0]).resolve()


def _open_sqlite(tracking_uri: str) -> None:
    """Raise what sqlite says of a file that it cannot open, for which MLflow tries ten times."""
    database = _sqlite_file(tracking_uri)
    if database is not None:
        sqlite3.connect(database).close()


@contextmanager
def _alone(tracking_uri: str) -> Iterator[None]:
    """Let no other process make tables or experiments in a sqlite file meanwhile.

    MLflow's migrations break where two processes run them on one file.
    """
    database = _sqlite_file(tracking_uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(database.parent, os.W_OK):
        yield  # whoever may only read makes no tables
        return
    with database.with_name(f".{database.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _find_experiment(config: TrackingConfig) -> Experiment | None:
    from mlflow import MlflowClient

    return MlflowClient(config.uri).get_experiment_by_name(config.experiment)
