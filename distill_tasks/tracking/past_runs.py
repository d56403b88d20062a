"""The distillations of a name that MLflow knows, the latest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from distill_tasks.tracking.links import run_link
from distill_tasks.tracking.names import CHOSEN, OUTCOME
from distill_tasks.tracking.store import find_experiment
from distill_tasks.tracking.tags import FAILURE, ROLE
from distill_tasks.tracking.views import VERDICT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from distill_tasks.config import DistillConfig

MOST_RUNS = 5


@dataclass(frozen=True)
class PastRun:
    """What a summary run says of its distillation; None where it says nothing."""

    started: str
    """UTC, ISO 8601."""
    status: str
    """As MLflow has it: RUNNING, FINISHED, FAILED or KILLED."""
    chosen: str | None
    verdict: str | None
    outcome: str | None
    """What became of the version, or why the run failed."""
    link: str
    flow_run_link: str | None


def list_past_runs(client: MlflowClient, config: DistillConfig) -> list[PastRun]:
    """Return the last few distillations of a configuration's name."""
    experiment = find_experiment(config.tracking)
    if experiment is None:
        return []
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.`{ROLE}` = 'summary' AND attributes.run_name = '{config.name}'",
        max_results=MOST_RUNS,
        order_by=["attributes.start_time DESC"],
    )
    return [_read(run, config.tracking.ui_address) for run in found]


def _read(run: Run, ui: str) -> PastRun:
    tags, started = run.data.tags, datetime.fromtimestamp(run.info.start_time / 1_000, UTC)
    return PastRun(
        started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        status=run.info.status,
        chosen=tags.get(CHOSEN),
        verdict=tags.get(VERDICT),
        outcome=tags.get(FAILURE) or tags.get(OUTCOME),
        link=run_link(ui, run.info.experiment_id, run.info.run_id),
        flow_run_link=tags.get("prefect.flow_run_url"),
    )
