"""Tags of MLflow runs that start inside a Prefect flow. `import mlflow` imports this module."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from mlflow.tracking.context.abstract_context import RunContextProvider


class PrefectRunContext(RunContextProvider):
    """Stamps a run with the Prefect flow run that it is part of."""

    def in_context(self) -> bool:
        """Return whether a flow is running here. Prefect is not imported for that."""
        return _find_context() is not None

    def tags(self) -> dict[str, str]:
        """Return id, name and page of the flow run, its flow, and its deployment if it has one."""
        from prefect.runtime import flow_run

        context = _find_context()
        if context is None:
            return {}
        run, page = context.flow_run, flow_run.ui_url
        tags = {
            "prefect.flow_run_id": run.id,
            "prefect.flow_run_name": run.name,
            "prefect.flow_name": context.flow.name,
            "prefect.deployment": run.deployment_id and _name_deployment(str(run.deployment_id)),
            "prefect.flow_run_url": page if str(page).startswith("http") else None,
        }
        return {name: str(value) for name, value in tags.items() if value}


def _find_context() -> Any:
    """Return Prefect's context of the flow that is running; None where there is none."""
    context = sys.modules.get("prefect.context")  # no flow runs before this is imported
    found = context and context.FlowRunContext.get()
    return found if found and found.flow_run and found.flow else None


@cache
def _name_deployment(deployment_id: str) -> str:
    """Return the name of the current deployment, or its id where the server does not answer."""
    from prefect.runtime import deployment

    try:
        return str(deployment.name or deployment_id)
    except Exception:  # noqa: BLE001  # a tag must not end a run
        return deployment_id
