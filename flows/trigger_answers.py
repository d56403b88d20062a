"""How a triggered run ended: its answer, and what it left with Prefect for a summary."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from pydantic import Field

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.markup import as_markdown
from flows.answers import CODES, DETAILED_CODES, Answer, Ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    from distill_tasks.core.terminal import Cells

ENDINGS = {
    "Promoted": Ending.PROMOTED,
    "Champion stays": Ending.CHAMPION_ALREADY,
    "Kept as challenger": Ending.KEPT,
    "Waiting for review": Ending.WAITING,
    "Would promote": Ending.WOULD_PROMOTE,
    "Nothing to do": Ending.NOTHING_TO_DO,
}
"""How a flow ended, by the name of the state in which `end_as` left its run."""
UNQUALIFIED = "NothingQualifiesError"
"""The error of a distillation without a candidate, as the state of its run names it."""
SHOWN = {"verdict", "against control", "p95 ms", "speed-up p50", "MB", "outcome"}
"""Of the table of candidates, the columns of a summary beside the model and its quality."""


class TriggerAnswer(Answer):
    """What `trigger` prints."""

    deployment: str = Field(description="The deployment, FLOW/DEPLOYMENT.")
    flow_run: str | None = Field(description="Prefect flow run; null where none was created.")
    state: str | None = Field(description="State of the flow run when it was last looked at.")
    link: str | None = Field(description="Address of the flow run in Prefect.")
    mlflow: str | None = Field(description="Address of the summary run in MLflow.")


@dataclass(frozen=True)
class Shown:
    """What a run left with Prefect: tables whose cells are markdown already, and a link."""

    candidates: list[Cells] = field(default_factory=list)
    gate: list[Cells] = field(default_factory=list)
    mlflow: str | None = None


def read_shown(client: SyncPrefectClient, run: FlowRun) -> Shown:
    """Return what a run left with Prefect."""
    keys = ArtifactFilterKey(any_=["candidates", "gate", "mlflow-run"])
    found = {
        one.key: one.data
        for one in client.read_artifacts(
            artifact_filter=ArtifactFilter(key=keys),
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        )
    }
    address = str(found.get("mlflow-run", "")).rpartition("](")[2].removesuffix(")")
    return Shown(
        _read_table(found.get("candidates")),
        _read_table(found.get("gate")),
        address if address.startswith("http") else None,
    )


def _read_table(data: Any) -> list[Cells]:
    rows = json.loads(data) if isinstance(data, str) else data
    return [{str(key): str(cell) for key, cell in row.items()} for row in rows or []]


def name_end(state: State[Any]) -> Ending:
    """Return how a flow ended, by the state of its run."""
    if state.is_completed():
        return ENDINGS.get(str(state.name), Ending.DONE)
    return Ending.NOTHING_QUALIFIED if UNQUALIFIED in str(state.message) else Ending.FAILED


def answer_trigger(deployment: str, run: FlowRun, link: str, shown: Shown) -> TriggerAnswer:
    """Return how a run that was followed to its end came out."""
    state = run.state
    assert state is not None
    ending = name_end(state)
    said = f": {mask_credentials(state.message)}" if state.message else ""
    return TriggerAnswer(
        command="trigger",
        outcome=ending,
        exit_code=DETAILED_CODES.get(ending, 0),
        message=f"{deployment} ended as {state.name}{said}",
        deployment=deployment,
        flow_run=str(run.id),
        state=state.name,
        link=link,
        mlflow=shown.mlflow,
    )


def answer_unfinished(
    deployment: str, ending: Ending, message: str, run: FlowRun | None = None, link: str = ""
) -> TriggerAnswer:
    """Return that a run was only started, or why its end is not known."""
    return TriggerAnswer(
        command="trigger",
        outcome=ending,
        exit_code=CODES.get(ending, 0),
        message=message,
        deployment=deployment,
        flow_run=str(run.id) if run else None,
        state=run.state.name if run and run.state else None,
        link=link or None,
        mlflow=None,
    )


def summarize(answer: TriggerAnswer, shown: Shown) -> str:
    """Return a run's outcome as a section in Markdown: a sentence, links, tables."""
    links = {"Flow run": answer.link, "MLflow run": answer.mlflow}
    listed = " · ".join(
        f"[{title}]({address})"
        for title, address in links.items()
        if address and address.startswith("http")
    )
    verdict = str(answer.outcome).replace("_", " ")
    parts = [
        f"## {as_markdown(answer.deployment)}: {verdict}",
        as_markdown(answer.message),
        listed,
        _show("Candidates", [_narrow(row) for row in shown.candidates]),
        _show("Gate", shown.gate),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _narrow(row: Cells) -> Cells:
    """Return a candidate's cells that people ask for first: its name, quality and verdict."""
    first = list(row)[:3]
    return {title: cell for title, cell in row.items() if title in first or title in SHOWN}


def _show(title: str, rows: Sequence[Cells]) -> str:
    """Return a table whose cells are markdown already; empty where it has no rows."""
    if not rows:
        return ""
    columns = list(rows[0])
    titles = [as_markdown(column) for column in columns]
    cells = [[" ".join(row.get(column, "").split()) for column in columns] for row in rows]
    lines = [titles, ["---"] * len(columns), *cells]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
