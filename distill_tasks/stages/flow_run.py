"""The flow run that a stage belongs to, and what Prefect's automations hear from it."""

from __future__ import annotations

from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL


def current_flow_run() -> str | None:
    """Return the id of the Prefect flow run that this is called in; None outside of one."""
    found = flow_run.get_id()
    return str(found) if found else None


def link_flow_run() -> str | None:
    """Return the address of that flow run's page; None where no server shows one."""
    page = flow_run.ui_url if current_flow_run() else None
    return str(page) if str(page).startswith("http") else None


def announce(event: str, model: str, payload: dict[str, Any]) -> None:
    """Send an event about a registered model to Prefect, whose automations may act on it.

    Where there is neither a flow run nor a server, nobody would hear it, and nothing is sent.
    """
    if current_flow_run() is None and PREFECT_API_URL.value() is None:
        return
    resource = {"prefect.resource.id": f"potstill.model.{model}", "prefect.resource.name": model}
    emit_event(event, resource, payload=payload)
