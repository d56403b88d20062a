"""The mark of the champion: a tag of the run that it came from, shown in MLflow's list of runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from distill_tasks.core.retries import shorten
from distill_tasks.tracking.views import CHAMPION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger("potstill")


def mark_champion(client: MlflowClient, model: str, version: int) -> None:
    """Mark the summary run of a model's champion, and no other run, as that.

    The mark is for people: where the run is gone, the champion goes without.
    """
    try:
        summary = _find_summary(client, model, version)
        if summary is not None:
            _move_mark(client, summary, model, version)
    except MlflowException as error:
        logger.warning("champion %s %d has no mark: %s", model, version, shorten(error))


def _find_summary(client: MlflowClient, model: str, version: int) -> Run | None:
    """Return the summary run that a version came from; None for one that has none."""
    run_id = client.get_model_version(model, str(version)).run_id
    return client.get_run(run_id) if run_id else None


def _move_mark(client: MlflowClient, summary: Run, model: str, version: int) -> None:
    mine = f" of {model}"
    marked = client.search_runs([summary.info.experiment_id], f"tags.{CHAMPION} LIKE '%{mine}'")
    for run in marked:
        is_mine = run.data.tags[CHAMPION].endswith(mine)  # LIKE takes _ for any character
        if is_mine and run.info.run_id != summary.info.run_id:
            client.delete_tag(run.info.run_id, CHAMPION)
    client.set_tag(summary.info.run_id, CHAMPION, f"version {version}{mine}")
