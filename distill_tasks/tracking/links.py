"""Addresses of runs in MLflow's UI."""

from __future__ import annotations

import json
from urllib.parse import quote


def run_link(tracking_uri: str, experiment_id: str, run_id: str) -> str:
    """Return the address of a run in the UI; without a server, the address below `make ui`."""
    return (
        f"{_ui(tracking_uri)}/#/experiments/{experiment_id}/runs/{run_id}"
        "?workflowType=machine_learning"
    )


def compare_link(tracking_uri: str, experiment_id: str, run_ids: list[str]) -> str:
    """Return the address that compares runs: parallel coordinates and scatter plot."""
    runs, experiments = quote(json.dumps(run_ids)), quote(json.dumps([experiment_id]))
    return (
        f"{_ui(tracking_uri)}/#/compare-runs?runs={runs}&experiments={experiments}"
        "&workflowType=machine_learning"
    )


def _ui(tracking_uri: str) -> str:
    """Return the address of the UI: the server, or the address that `make ui` opens."""
    return tracking_uri.rstrip("/") if tracking_uri.startswith("http") else "http://127.0.0.1:5000"
