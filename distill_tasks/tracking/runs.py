"""The runs of one distillation: the summary and one for each model, linked by a tag."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.digests import digest
from distill_tasks.core.environment import read_environment, variables
from distill_tasks.core.retries import RETRIES, shorten
from distill_tasks.core.store import Store
from distill_tasks.results.teacher import digest_teacher
from distill_tasks.teachers.base import join_identity
from distill_tasks.tracking.figures import describe_datasets, log_datasets, log_params
from distill_tasks.tracking.links import run_link, view_link
from distill_tasks.tracking.store import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

    from distill_tasks.config import DistillConfig
    from distill_tasks.data.corpus import Corpus

logger = logging.getLogger("potstill")

DISTILLATION = "distillation"
"""The tag that all runs of one distillation share."""
KEY = "potstill.key"
"""The tag by which a run is found again, so that a killed run is continued, not duplicated."""
LOGGED = "potstill.logged"
"""The tag of a run whose figures are all written."""

STORE = "potstill.store"
"""The tag with the identity of the store in which a summary run works."""

FAILURE = "potstill.failure"
"""The tag with the reason why a summary run failed."""

KILLED = "its process ended without a word, as by kill -9 or where memory runs out"


@dataclass(frozen=True)
class Distillation:
    """The MLflow identity of one distillation: digest, experiment and summary run."""

    digest: str
    experiment_id: str
    run_id: str
    ui: str
    """The address of MLflow's UI."""
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
        yield Distillation(name, experiment_id, run_id, config.tracking.ui_address, finished)
    except BaseException as error:
        _end_as_failed(client, run_id, error)
        raise
    run = client.get_run(run_id)
    if FAILURE in run.data.tags:
        client.delete_tag(run_id, FAILURE)
    if run.info.status != "FINISHED":
        client.set_terminated(run_id, "FINISHED")


def _end_lost_runs(client: MlflowClient, experiment_id: str, store: str, mine: str) -> None:
    """Mark summary runs of other distillations in this store that are still running as killed.

    This distillation holds the lock of the store, so the processes of the others must have ended.
    """
    lost = client.search_runs(
        [experiment_id], f"attributes.status = 'RUNNING' AND tags.`{STORE}` = '{store}'"
    )
    for distillation in {run.data.tags[DISTILLATION] for run in lost} - {mine}:
        running = f"attributes.status = 'RUNNING' AND tags.`{DISTILLATION}` = '{distillation}'"
        for run in client.search_runs([experiment_id], running):
            client.set_tag(run.info.run_id, FAILURE, KILLED)
            client.set_terminated(run.info.run_id, "KILLED")


def find_or_start(
    experiment_id: str, distillation: str, role: str, name: str, *, parent: str | None = None
) -> tuple[str, bool]:
    """Return the id of a distillation's run with a role, and whether it is completely written.

    A new one stands below the run ``parent`` in MLflow's list.
    """
    import mlflow
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    key = f"{distillation}/{role}"
    found = mlflow.MlflowClient().search_runs(
        [experiment_id], filter_string=f"tags.`{KEY}` = '{key}'", max_results=1
    )
    if found:
        return str(found[0].info.run_id), found[0].data.tags.get(LOGGED) == "true"
    tags = {KEY: key, DISTILLATION: distillation, "potstill.role": role.split("/")[0]}
    tags |= {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
    with mlflow.start_run(experiment_id=experiment_id, run_name=name, tags=tags) as run:
        return str(run.info.run_id), False


def finish(run_id: str) -> None:
    """Mark a run as completely written."""
    import mlflow

    client = mlflow.MlflowClient()
    client.set_tag(run_id, LOGGED, "true")
    client.set_terminated(run_id, "FINISHED")


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
