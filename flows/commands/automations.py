"""The command that has Prefect tell people what happened: automations."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from distill_tasks.core.errors import InputError
from flows.answers import Answer, Ending
from flows.commands.options import Json
from flows.printing import out
from flows.status_answers import AutomationAnswer, AutomationsAnswer


def automations(
    *,
    apply: Annotated[
        bool, Parameter(help="Create or update them on the server.", negative="")
    ] = False,
    notify: Annotated[
        str | None,
        Parameter(
            help="Type and name of the block that notifies, such as slack-webhook/ops; its secrets "
            "stay in it."
        ),
    ] = None,
    json: Json = False,
) -> Answer:
    """List the Prefect automations that tell people of what went wrong, or waits for them.

    With --apply the server of PREFECT_API_URL gets them; those of the same names are updated.

    Example: potstill automations --apply --notify slack-webhook/ops
    """
    if apply and notify is None:
        raise InputError(
            "Name the block that notifies, such as --notify slack-webhook/ops; `prefect block ls` "
            "lists those there are."
        )
    from flows.automations import Change, apply_notices, list_notices

    notices = list_notices()
    changes = apply_notices(notices, notify) if apply and notify else {}
    listed = [
        AutomationAnswer(
            name=notice.name, about=notice.about, change=changes.get(notice.name, Change.NONE)
        )
        for notice in notices
    ]
    message = "They are on the server." if apply else "Nothing was changed; --apply does it."
    if not json:
        for one in listed:
            out.say(f"{one.about} ({one.change})", name=one.name)
        out.say(message)
    return AutomationsAnswer(
        command="automations",
        outcome=Ending.DONE,
        exit_code=0,
        message=message,
        applied=apply,
        automations=listed,
    )
