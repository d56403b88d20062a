"""Prefect automations that tell people what happened while nobody looked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import AutomationCore, EventTrigger
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.schemas.automations import Automation, Posture
from prefect.exceptions import ObjectNotFound

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError, PotstillError
from flows.flow_runs import FLOWS
from flows.prefect_server import open_server

NIGHTLY = "nightly"
"""The deployment that should complete every night."""
SILENCE = timedelta(hours=26)
"""A day, and the time that a night's run may take longer than the one before."""
WEBHOOK = "webhook"
"""The type of block that is called; all other types notify."""
ONE_RUN = "prefect.resource.id"
LABELS = {"prefect.resource.id": "prefect.flow-run.*"}
EACH_EVENT: dict[str, Any] = {"posture": Posture.Reactive, "threshold": 1, "within": timedelta(0)}
"""Prefect's defaults, which its client leaves out of an update unless they are written."""
VERSION = "version {{ event.payload.version }} of {{ event.resource.name }}"
RUN = "{{ flow.name }} of {{ flow_run.name }}"


class Change(StrEnum):
    """What is done about an automation."""

    NONE = "would be created or updated"
    CREATED = "created"
    UPDATED = "updated"
    KEPT = "as it was"


@dataclass(frozen=True)
class Notice:
    """One thing that people are told: when, and in which words.

    The words are Jinja templates, which the server fills in.
    """

    name: str
    about: str
    """When it is told, for people."""
    trigger: EventTrigger
    subject: str
    body: str

    def automate(self, action: ActionTypes, enabled: bool = True) -> AutomationCore:
        """Return the automation that takes an action when this happens."""
        return AutomationCore(
            name=self.name,
            description=self.about,
            enabled=enabled,
            tags=["potstill"],
            trigger=self.trigger,
            actions=[action],
        )


def list_notices(silence: timedelta = SILENCE) -> list[Notice]:
    """Return what people are told; after ``silence``, that no nightly run has completed."""
    return [
        Notice(
            name="potstill: a run failed",
            about=f"A flow run of {', '.join(FLOWS)} failed or crashed.",
            trigger=_watch_runs(["FAILED", "CRASHED"], "flow", list(FLOWS)),
            subject=f"Potstill: {RUN} ended as {{{{ flow_run.state.name }}}}",
            body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
        ),
        Notice(
            name="potstill: the gate refused",
            about="A version did not pass the gate; the champion stays.",
            trigger=_watch_models("potstill.gate.failed"),
            subject=f"Potstill: {VERSION} did not pass the gate",
            body="{{ event.payload.why }}",
        ),
        Notice(
            name="potstill: a version waits for review",
            about="A version passed the gate, and a person has to approve it.",
            trigger=_watch_models("potstill.review.pending"),
            subject=f"Potstill: {VERSION} waits for a review",
            body="{{ event.payload.why }}. Set its tag `review` in MLflow, or: potstill review "
            "{{ event.resource.name }} --version {{ event.payload.version }} --approve",
        ),
        Notice(
            name="potstill: no nightly run",
            about=f"No run of the deployment {NIGHTLY} completed for {_say_hours(silence)}.",
            trigger=_watch_silence(silence),
            subject=f"Potstill: no run of {NIGHTLY} completed for {_say_hours(silence)}",
            body="Look whether its worker and its schedule are there.",
        ),
    ]


def _watch_runs(types: list[str], role: str, names: list[str]) -> EventTrigger:
    """Return a trigger for each flow run that enters a state of these types.

    The type is asked and not the event's name, which is that of the state: `Promoted`, say.
    """
    return EventTrigger(
        match=LABELS | {"prefect.state-type": types},
        match_related={"prefect.resource.role": role, "prefect.resource.name": names},
        for_each={ONE_RUN},
        expect={"prefect.flow-run.*"},
        **EACH_EVENT,
    )


def _watch_models(event: str) -> EventTrigger:
    """Return a trigger for each event of this name about any registered model."""
    return EventTrigger(
        match={"prefect.resource.id": "potstill.model.*"}, expect={event}, **EACH_EVENT
    )


def _watch_silence(silence: timedelta) -> EventTrigger:
    """Return a trigger for every such time in which no nightly run completed."""
    return EventTrigger(
        match=LABELS | {"prefect.state-type": "COMPLETED"},
        match_related={"prefect.resource.role": "deployment", "prefect.resource.name": NIGHTLY},
        expect={"prefect.flow-run.*"},
        posture=Posture.Proactive,
        threshold=1,
        within=silence,
    )


def _say_hours(silence: timedelta) -> str:
    return f"{silence / timedelta(hours=1):g} hours"


def apply_notices(notices: list[Notice], block: str) -> dict[str, Change]:
    """Have the server of `PREFECT_API_URL` tell of notices through a block; return what changed.

    ``block`` is the type and the name of a block document, such as ``slack-webhook/ops``. An
    automation of the same name is updated where it differs, and stays disabled where it is.

    Raises InputError if there is no server or no such block.
    """
    kind, slash, name = block.partition("/")
    if not (kind and slash and name):
        raise InputError(
            f"--notify {block!r} is no type and name of a block, such as slack-webhook/ops."
        )
    with connected() as client:
        try:
            found = client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound:
            raise InputError(
                f"The server has no block {block}. `prefect block ls` lists those it has; make one "
                "in Prefect's pages, below Blocks."
            ) from None
        return {
            notice.name: _apply(client, notice, _act(notice, kind, found.id)) for notice in notices
        }


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """Yield a client of the server of `PREFECT_API_URL`.

    Raises InputError if there is none that answers, and PotstillError if it does not do something.
    """
    with open_server("automations") as client:
        try:
            yield client
        except httpx.HTTPError as error:
            raise PotstillError(
                f"The Prefect server at {mask_credentials(str(client.api_url))} did not do it: "
                f"{mask_credentials(str(error)) or type(error).__name__}."
            ) from None


def _act(notice: Notice, kind: str, block_id: object) -> ActionTypes:
    if kind != WEBHOOK:
        return SendNotification(
            block_document_id=block_id, subject=notice.subject, body=notice.body
        )
    fields = {"name": notice.name, "subject": notice.subject, "body": notice.body}
    filled = ", ".join(f'"{key}": {_quote(text)}' for key, text in fields.items())
    return CallWebhook(block_document_id=block_id, payload=f"{{{filled}}}")


def _quote(template: str) -> str:
    """Return a template that fills another one in and makes a JSON string of it."""
    return f"{{% filter tojson %}}{template}{{% endfilter %}}"


def _apply(client: SyncPrefectClient, notice: Notice, action: ActionTypes) -> Change:
    known = client.read_automations_by_name(notice.name)
    if not known:
        client.create_automation(notice.automate(action))
        return Change.CREATED
    wanted = notice.automate(action, known[0].enabled)
    if _is_as(known[0], wanted):
        return Change.KEPT
    client.update_automation(known[0].id, wanted)
    return Change.UPDATED


def _is_as(known: Automation, wanted: AutomationCore) -> bool:
    names = ("description", "tags", "trigger", "actions")
    return all(getattr(known, name) == getattr(wanted, name) for name in names)
