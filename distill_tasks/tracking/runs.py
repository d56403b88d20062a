"""The one file that writes MLflow runs: summary, teacher, control and students, tied by a tag."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from distill_tasks.config import DistillConfig, TrackingConfig
from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.digests import digest
from distill_tasks.core.environment import read_environment, variables
from distill_tasks.core.errors import InputError
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.problems.classification import name_labels, to_decisions
from distill_tasks.scoring.intervals import Figure
from distill_tasks.tracking.retries import RETRIES, limit_retries, shorten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

logger = logging.getLogger("potstill")

DISTILLATION = "distillation"
"""The tag that ties all runs of one distillation."""
KEY = "potstill.key"
"""The tag by which a run is found again, so that a killed one is continued, never doubled."""
LOGGED = "potstill.logged"
"""The tag of a run whose every figure is written."""

STORE = "potstill.store"
"""The tag that says in which store a summary run works."""

FAILURE = "potstill.failure"
"""The tag that says why a summary run failed."""

KILLED = "its process ended without a word, as by kill -9 or where memory runs out"

METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
"""What MLflow takes in one batch: a server that hashes a password for each call is slow."""


@dataclass(frozen=True)
class Distillation:
    """The MLflow identity of one distillation: digest, experiment and summary run."""

    digest: str
    experiment_id: str
    run_id: str
    tracking_uri: str
    finished: bool
    """Whether an earlier run wrote everything already."""

    @property
    def link(self) -> str:
        """Return the path of the summary run in the MLflow UI."""
        return run_link(self.tracking_uri, self.experiment_id, self.run_id)


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

    use_store(config)
    with _alone(config.uri):
        found = _find_experiment(config)
        experiment_id = (
            mlflow.create_experiment(config.experiment, artifact_location=_artifacts(config.uri))
            if found is None
            else found.experiment_id
        )
    return str(mlflow.set_experiment(experiment_id=experiment_id).experiment_id)


def use_store(config: TrackingConfig) -> None:
    """Point MLflow at the store, its registry too, whatever address the environment names."""
    import mlflow

    limit_retries()
    mlflow.set_tracking_uri(config.uri)
    mlflow.set_registry_uri(config.uri)


@contextmanager
def tracked(config: DistillConfig, corpus: Corpus) -> Iterator[Distillation]:
    """Open the summary run of a distillation, and end it as finished or failed with its reason."""
    import mlflow

    experiment_id = connect(config.tracking)
    name = digest(
        config.model_dump(mode="json", exclude={"work_dir", "tracking"}),
        corpus.digest,
        config.teacher.digest(corpus, config.seed, config.loss.balance_classes),
    )
    run_id, finished = find_or_start(experiment_id, name, "summary", config.name)
    client, store = mlflow.MlflowClient(), Store(config.work_dir).identity
    _end_lost_runs(client, experiment_id, store, name)
    if not finished:
        _log_config(client, run_id, config)
        client.log_dict(run_id, asdict(read_environment()), "environment.json")
        log_datasets(run_id, describe_datasets(corpus))
        client.set_tag(run_id, STORE, store)
        client.update_run(run_id, status="RUNNING")
    try:
        yield Distillation(name, experiment_id, run_id, config.tracking.uri, finished)
    except BaseException as error:
        _end_as_failed(client, run_id, error)
        raise
    run = client.get_run(run_id)
    if FAILURE in run.data.tags:
        client.delete_tag(run_id, FAILURE)
    if run.info.status != "FINISHED":
        client.set_terminated(run_id, "FINISHED")


def _end_lost_runs(client: MlflowClient, experiment_id: str, store: str, mine: str) -> None:
    """Mark as killed what still runs in a store by its tags, other distillations than this one.

    This one holds the lock of the store, so their processes are gone: no sooner is the lock free.
    """
    lost = client.search_runs(
        [experiment_id], f"attributes.status = 'RUNNING' AND tags.`{STORE}` = '{store}'"
    )
    for distillation in {run.data.tags[DISTILLATION] for run in lost} - {mine}:
        running = f"attributes.status = 'RUNNING' AND tags.`{DISTILLATION}` = '{distillation}'"
        for run in client.search_runs([experiment_id], running):
            client.set_tag(run.info.run_id, FAILURE, KILLED)
            client.set_terminated(run.info.run_id, "KILLED")


def find_or_start(experiment_id: str, distillation: str, role: str, name: str) -> tuple[str, bool]:
    """Return the id of a distillation's run in some role, and whether it is fully written."""
    import mlflow

    key = f"{distillation}/{role}"
    found = mlflow.MlflowClient().search_runs(
        [experiment_id], filter_string=f"tags.`{KEY}` = '{key}'", max_results=1
    )
    if found:
        return str(found[0].info.run_id), found[0].data.tags.get(LOGGED) == "true"
    tags = {KEY: key, DISTILLATION: distillation, "potstill.role": role.split("/")[0]}
    with mlflow.start_run(experiment_id=experiment_id, run_name=name, tags=tags) as run:
        return str(run.info.run_id), False


def finish(run_id: str) -> None:
    """Mark a run as fully written."""
    import mlflow

    client = mlflow.MlflowClient()
    client.set_tag(run_id, LOGGED, "true")
    client.set_terminated(run_id, "FINISHED")


def describe_datasets(corpus: Corpus) -> dict[str, Any]:
    """Return the splits as MLflow datasets by name."""
    import pandas as pd
    from mlflow.data.pandas_dataset import from_pandas

    datasets = {}
    for name, split in corpus.splits.items():
        frame = pd.DataFrame({"text": split.texts})
        if split.has_gold:
            gold = to_decisions(split.gold, len(corpus.classes))
            frame["label"] = name_labels(gold, corpus.classes)
        targets = "label" if split.has_gold else None
        datasets[name] = from_pandas(frame, name=name, targets=targets)
    return datasets


def log_datasets(run_id: str, datasets: Mapping[str, Any]) -> None:
    """Link a run to the splits."""
    import mlflow

    with mlflow.start_run(run_id=run_id):
        untagged: list[dict[str, str] | None] = [None] * len(datasets)
        mlflow.log_inputs([*datasets.values()], [*datasets], untagged)


def log_figures(
    run_id: str,
    figures: Mapping[str, Figure],
    values: Mapping[str, float],
    model_id: str | None,
    dataset: Any,
) -> None:
    """Log figures with the ends of their intervals, tied to their model and dataset."""
    import mlflow

    metrics = dict(values)
    for name, figure in figures.items():
        metrics |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    with mlflow.start_run(run_id=run_id):
        mlflow.log_metrics(metrics, model_id=model_id, dataset=dataset)


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log the settings of a run; those already there stay."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    entities = [Param(name, str(value)) for name, value in params.items()]
    for start in range(0, len(entities), PARAMS_AT_ONCE):
        batch = entities[start : start + PARAMS_AT_ONCE]
        MlflowClient().log_batch(run_id, params=batch)


def log_curve(run_id: str, curve: list[dict[str, float]]) -> None:
    """Log a training curve by step, all of it at once."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    metrics = [
        Metric(name, value, now_ms, int(point["step"]))
        for point in curve
        for name, value in point.items()
        if "/" in name
    ]
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        MlflowClient().log_batch(run_id, metrics[start : start + METRICS_AT_ONCE])


def run_link(tracking_uri: str, experiment_id: str, run_id: str) -> str:
    """Return the address of a run in the UI; without a server, its path behind the UI's address."""
    return (
        f"{_ui(tracking_uri)}/#/experiments/{experiment_id}/runs/{run_id}"
        "?workflowType=machine_learning"
    )


def compare_link(tracking_uri: str, experiment_id: str, run_ids: list[str]) -> str:
    """Return the address that opens runs side by side: parallel coordinates and scatter."""
    runs, experiments = quote(json.dumps(run_ids)), quote(json.dumps([experiment_id]))
    return (
        f"{_ui(tracking_uri)}/#/compare-runs?runs={runs}&experiments={experiments}"
        "&workflowType=machine_learning"
    )


def _ui(tracking_uri: str) -> str:
    """Return where the UI is: the server itself, or the address that `make ui` opens."""
    return tracking_uri.rstrip("/") if tracking_uri.startswith("http") else "http://127.0.0.1:5000"


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


def _end_as_failed(client: MlflowClient, run_id: str, failure: BaseException) -> None:
    """End a run with the reason of its failure; a server that is gone is not waited for."""
    from mlflow.exceptions import MlflowException

    reason = mask_credentials(f"{type(failure).__name__}: {failure}")[:5000]
    try:
        with variables({RETRIES: "0"}):
            client.set_tag(run_id, FAILURE, reason)
            client.set_terminated(run_id, "FAILED")
    except MlflowException as error:
        logger.warning("MLflow does not know that the run failed: %s", shorten(error))


def _log_config(client: MlflowClient, run_id: str, config: DistillConfig) -> None:
    import yaml

    written = config.model_dump(mode="json")
    client.log_text(run_id, yaml.safe_dump(written, sort_keys=False), "distill.yaml")
    for key in ("name", "seed", "problem", "loss", "select", "evaluate", "measure"):
        log_params(run_id, dict(_flatten(key, written[key])))
    names = ", ".join(student.name for student in config.students)
    log_params(run_id, {"teacher.kind": config.teacher.kind, "students": names})


def _flatten(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(f"{path}.{key}", inner)
    elif value is not None:
        yield path, value
