"""Runs that a dead process left behind: they are closed, and tied to the one that goes on."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from distill_tasks.core.processes import ProcessName
from distill_tasks.tracking.tags import (
    CONTINUED_BY,
    CONTINUES,
    FAILURE,
    INTERRUPTIONS,
    KEY,
    LAST_INTERRUPTION,
    PROCESS,
    ROLE,
    STORE,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger("potstill")

KILLED = "ended without a word, as by kill -9 or where memory runs out"
OUTCOMES = "NothingQualifiesError", "WeakTeacherError"
"""Failures that are what a run came to: nothing interrupted it."""


def close_lost_runs(client: MlflowClient, experiment_id: str, store: str) -> None:
    """Mark runs of a store that are still running as killed.

    Whoever calls this holds the lock of the store, so that their processes have ended. A run that
    a retried request made a second time is removed.
    """
    query = f"attributes.status = 'RUNNING' AND tags.`{STORE}` = '{store}'"
    for run in client.search_runs([experiment_id], query):
        if _has_newer_twin(client, experiment_id, run):
            client.delete_run(run.info.run_id)
            continue
        if run.data.tags.get(ROLE) == "summary":
            process = ProcessName.parse(run.data.tags.get(PROCESS, ""))
            who = process.words if process else "its process"
            client.set_tag(run.info.run_id, FAILURE, f"{who} {KILLED}")
        client.set_terminated(run.info.run_id, "KILLED")


def note_continuation(client: MlflowClient, run: Run) -> None:
    """Say on a run that was interrupted that this process goes on with it."""
    if not _was_interrupted(run):
        return
    tags, now = run.data.tags, datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    reason = tags.get(FAILURE, "it says no reason")
    words = f"{reason}; {ProcessName.here().words} went on {now}"
    count = int(tags.get(INTERRUPTIONS, 0)) + 1
    client.set_tag(run.info.run_id, INTERRUPTIONS, str(count))
    client.set_tag(run.info.run_id, LAST_INTERRUPTION, words)
    logger.info("MLflow: going on with run %s: %s", run.info.run_id, reason)


def link_interrupted(client: MlflowClient, run: Run, store: str) -> None:
    """Tie the last run of the same name in the same store to this one, if it was interrupted."""
    query = f"tags.`{STORE}` = '{store}' AND tags.`{ROLE}` = 'summary'"
    query += f" AND attributes.run_name = '{run.info.run_name}'"
    found = client.search_runs([run.info.experiment_id], query, max_results=2)
    earlier = next((one for one in found if one.info.run_id != run.info.run_id), None)
    if earlier is None or not _was_interrupted(earlier):
        return
    if CONTINUED_BY not in earlier.data.tags:
        client.set_tag(run.info.run_id, CONTINUES, earlier.info.run_id)
        client.set_tag(earlier.info.run_id, CONTINUED_BY, run.info.run_id)


def _was_interrupted(run: Run) -> bool:
    reason = run.data.tags.get(FAILURE, "")
    return run.info.status in ("KILLED", "FAILED") and not reason.startswith(OUTCOMES)


def _has_newer_twin(client: MlflowClient, experiment_id: str, run: Run) -> bool:
    key = run.data.tags[KEY]
    newest = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
    return bool(newest) and newest[0].info.run_id != run.info.run_id
