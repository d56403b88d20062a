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
from distill_tasks.core.retries import RETRIES, limit_retries, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Experiment

    from distill_tasks.config import TrackingConfig

SERVED = ("postgresql", "mysql")
"""How the addresses of databases on a server begin, whose drivers all know `connect_timeout`."""
CONNECT_S = 20


def check_tracking(config: TrackingConfig) -> None:
    """Raise InputError if the store cannot be reached; create the tables of a new one."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    refusals = MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ValueError, ImportError
    try:
        with variables({RETRIES: "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}), _alone(config.uri):
            _open_database(config.uri)
            find_experiment(config)
    except refusals as error:
        reason, advice = shorten(error), "Start that server, or use sqlite:///mlflow.db."
        if "not authenticated" in reason:
            advice = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment."
        raise InputError(
            f"tracking.uri {config.uri} cannot be reached: {reason}. {advice}"
        ) from None


def check_experiment(config: TrackingConfig) -> None:
    """Raise InputError if the experiment was deleted, since MLflow then accepts no runs in it."""
    found = find_experiment(config)
    if found is not None and found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment {config.experiment!r} was deleted. Restore it with `mlflow "
            f"experiments restore --experiment-id {found.experiment_id}`, or name another one."
        )


def connect(config: TrackingConfig) -> str:
    """Point MLflow at the store and return the id of the experiment, which is made if missing."""
    import mlflow

    experiment_id = make_experiment(open_store(config), config.experiment)
    return str(mlflow.set_experiment(experiment_id=experiment_id).experiment_id)


def make_experiment(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, which is made if there is none of that name."""
    with _alone(client.tracking_uri):
        found = client.get_experiment_by_name(name)
        if found is None:
            return _create_experiment(client, name)
        return str(found.experiment_id)


def _create_experiment(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(name, _artifacts(client.tracking_uri)))
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)  # another process made it on the server in between


def open_store(config: TrackingConfig) -> MlflowClient:
    """Point MLflow and its registry at the store, whatever the environment variables say."""
    import mlflow

    limit_retries()
    mlflow.set_tracking_uri(config.uri)
    mlflow.set_registry_uri(config.uri)
    return mlflow.MlflowClient(config.uri)


def open_checked(config: TrackingConfig) -> MlflowClient:
    """Point MLflow at the store, or raise InputError if it cannot be reached."""
    check_tracking(config)
    return open_store(config)


def _artifacts(tracking_uri: str) -> str | None:
    """Return the folder for artifacts beside a sqlite file; None for a server, with its own."""
    database = find_sqlite_file(tracking_uri)
    return None if database is None else (database.parent / "mlartifacts").as_uri()


def find_sqlite_file(tracking_uri: str) -> Path | None:
    """Return the file of a sqlite database; None for any other address."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0]).resolve()


def _open_database(tracking_uri: str) -> None:
    """Raise the error of a database that cannot be opened, which MLflow would try ten times."""
    from sqlalchemy import create_engine

    database = find_sqlite_file(tracking_uri)
    if database is not None:
        sqlite3.connect(database).close()
    elif tracking_uri.startswith(SERVED):
        engine = create_engine(tracking_uri, connect_args={"connect_timeout": CONNECT_S})
        engine.connect().close()
        engine.dispose()


@contextmanager
def _alone(tracking_uri: str) -> Iterator[None]:
    """Lock a sqlite file inside the block, so that only this process makes tables or experiments.

    MLflow's migrations fail if two processes run them on one file.
    """
    database = find_sqlite_file(tracking_uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(database.parent, os.W_OK):
        yield  # a reader without write access makes no tables
        return
    with database.with_name(f".{database.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def find_experiment(config: TrackingConfig) -> Experiment | None:
    """Return the experiment of a configuration; None if there is none yet."""
    from mlflow import MlflowClient

    return MlflowClient(config.uri).get_experiment_by_name(config.experiment)
