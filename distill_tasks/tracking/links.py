"""Addresses of pages in MLflow's UI, all of them in its part for model training."""

from __future__ import annotations

from urllib.parse import quote, urlencode

WORKFLOW = {"workflowType": "machine_learning"}
"""Without it MLflow opens its GenAI pages, which hide the registry."""


def run_link(ui: str, experiment_id: str, run_id: str) -> str:
    """Return the address of a run."""
    return _page(ui, f"experiments/{experiment_id}/runs/{run_id}", {})


def view_link(ui: str, experiment_id: str, view: str, mode: str = "TABLE") -> str:
    """Return the address of an experiment's runs in a shared view, as a table or as charts."""
    shown = {"compareRunsMode": mode, "viewStateShareKey": view}
    return _page(ui, f"experiments/{experiment_id}/runs", shown)


def version_link(ui: str, model: str, version: int) -> str:
    """Return the address of a version's card."""
    return _page(ui, f"models/{quote(model)}/versions/{version}", {})


def artifact_path(run_id: str, path: str) -> str:
    """Return the address of a run's file as a page of the UI links it, whichever the server."""
    return f"get-artifact?{urlencode({'path': path, 'run_uuid': run_id})}"


def _page(ui: str, path: str, query: dict[str, str]) -> str:
    return f"{ui}/#/{path}?{urlencode(query | WORKFLOW)}"
