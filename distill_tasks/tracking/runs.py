"""The runs of one distillation: the summary and one for each model, linked by a tag."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.digests import digest
from distill_tasks.core.environment import read_environment, variables
from distill_tasks.core.processes import ProcessName
from distill_tasks.core.retries import RETRIES, shorten
from distill_tasks.core.store import Store
from distill_tasks.results.teacher import digest_teacher
from distill_tasks.teachers.base import join_identity
from distill_tasks.tracking.figures import describe_datasets, log_datasets, log_params
from distill_tasks.tracking.interrupted import (
    close_lost_runs,
    link_interrupted,
    note_continuation,
)
from distill_tasks.tracking.links import run_link, view_link
from distill_tasks.tracking.store import connect
from distill_tasks.tracking.tags import DISTILLATION, FAILURE, KEY, LOGGED, PROCESS, ROLE, STORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

    from distill_tasks.config import DistillConfig
    from distill_tasks.data.corpus import Corpus

logger = logging.getLogger("potstill")


@dataclass(frozen=True)
class Distillation:
    """The MLflow identity of one distillation: digest, experiment and summary run."""

    digest: str
    experiment_id: str
    run_id: str
    ui: str
    """The address of MLflow's UI."""
    store: str
    """The identity of the store in which it works."""
    finished: bool
    """Whether an earlier run has written everything already."""

    @property
    def link(self) -> str:
        """The address of the summary run in MLflow's UI."""
        return run_link(self.ui, self.experiment_id, self.run_id)

    @property
    def compare_link(self) -> str:
        """The address of the charts that compare its models in MLflow's UI."""
        return view_link(self.ui, self.experiment_id, self.digest, "CHART")


@contextmanager
def tracked(config: DistillConfig, corpus: Corpus, identity: str = "") -> Iterator[Distillation]:
    """Open the summary run of a distillation, and end it as finished or failed with its reason.

    ``identity`` is what `Teacher.identify` returned: another model is another distillation.
    """
    import mlflow

    experiment_id = connect(config.tracking)
    name = digest(
        config.model_dump(mode="json", exclude={"work_dir", "tracking"}),
        corpus.digest,
        join_identity(digest_teacher(config, corpus), identity),
    )
    client, store = mlflow.MlflowClient(), Store(config.work_dir).identity
    close_lost_runs(client, experiment_id, store)
    run_id, finished = find_or_start(experiment_id, name, "summary", config.name, store=store)
    try:
        _go_on(client, run_id, store)
        if not finished:
            _log_config(client, run_id, config)
            client.log_dict(run_id, asdict(read_environment()), "environment.json")
            log_datasets(run_id, describe_datasets(corpus))
        yield Distillation(name, experiment_id, run_id, config.tracking.ui_address, store, finished)
    except BaseException as error:
        _end_as_failed(client, run_id, error)
        raise
    _end_well(client, run_id)
    close_lost_runs(client, experiment_id, store)


def _go_on(client: MlflowClient, run_id: str, store: str) -> None:
    """Mark a summary run as running in this process, unless it had come to its end."""
    run = client.get_run(run_id)
    if run.info.status == "FINISHED" and LOGGED in run.data.tags:
        return
    note_continuation(client, run)
    link_interrupted(client, run, store)
    client.set_tag(run_id, STORE, store)
    client.set_tag(run_id, PROCESS, str(ProcessName.here()))
    client.update_run(run_id, status="RUNNING")


def _end_well(client: MlflowClient, run_id: str) -> None:
    run = client.get_run(run_id)
    if FAILURE in run.data.tags:
        client.delete_tag(run_id, FAILURE)
    if run.info.status != "FINISHED":
        client.set_terminated(run_id, "FINISHED")


def find_or_start(
    experiment_id: str,
    distillation: str,
    role: str,
    name: str,
    *,
    store: str = "",
    parent: str | None = None,
) -> tuple[str, bool]:
    """Return the id of a distillation's run with a role, and whether it is completely written.

    A new one is running until it is finished, and stands below the run ``parent`` in MLflow's list.
    ``store`` is where it works: the next run there closes it if its process ends before.
    """
    import mlflow
    from mlflow.tracking.context.registry import resolve_tags
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    client, key = mlflow.MlflowClient(), f"{distillation}/{role}"
    found = client.search_runs(
        [experiment_id], filter_string=f"tags.`{KEY}` = '{key}'", max_results=1
    )
    if found:
        return str(found[0].info.run_id), found[0].data.tags.get(LOGGED) == "true"
    tags = {KEY: key, DISTILLATION: distillation, ROLE: role.split("/")[0], STORE: store}
    tags |= {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
    made = client.create_run(experiment_id, tags=resolve_tags(tags), run_name=name)
    return str(made.info.run_id), False


def mark_written(run_id: str) -> None:
    """Mark a run as completely written; a summary still waits for what becomes of its student."""
    import mlflow

    mlflow.MlflowClient().set_tag(run_id, LOGGED, "true")


def finish(run_id: str) -> None:
    """Mark a run as completely written, and end it."""
    import mlflow

    mark_written(run_id)
    mlflow.MlflowClient().set_terminated(run_id, "FINISHED")


def _end_as_failed(client: MlflowClient, run_id: str, failure: BaseException) -> None:
    """End a run with the reason of its failure, without waiting for a server that is gone."""
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
