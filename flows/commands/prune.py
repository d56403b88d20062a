"""The command that removes what nothing needs any more."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from distill_tasks.config import load_config
from distill_tasks.core.wording import say_count
from flows.answers import Answer, Ending
from flows.commands.options import Config, Json
from flows.printing import out, print_leftovers
from flows.version_answers import LeftoverAnswer, PruneAnswer

DAYS = 30.0


def prune(
    config: Config,
    *,
    older_than_days: Annotated[
        float, Parameter(help="Nothing younger is removed.", validator=validators.Number(gte=0))
    ] = DAYS,
    labels: Annotated[
        bool, Parameter(help="Answers of teachers too, which were paid for.", negative="")
    ] = False,
    apply: Annotated[bool, Parameter(help="Remove what is listed.", negative="")] = False,
    json: Json = False,
) -> Answer:
    """List versions, distillations, students and labels that nothing needs; remove on request.

    Kept are what an alias stands for, the last two champions, and what waits for a review, with all
    they came from; the last distillation of each name; and everything younger.

    Example: potstill prune distill.yaml --older-than-days 90 --apply
    """
    settings = load_config(config)
    from distill_tasks.core.store import Store
    from distill_tasks.tracking.store import open_checked
    from registry.prune import find_leftovers

    client = open_checked(settings.tracking)
    with Store(settings.work_dir).lock(f"prune {settings.name}"):
        leftovers = find_leftovers(settings, client, older_than_days, labels)
        for leftover in leftovers if apply else ():
            leftover.remove()
    done = "Removed" if apply else "Nothing was removed; --apply removes"
    message = (
        f"{done} {say_count(len(leftovers), 'leftover')}." if leftovers else "Nothing to prune."
    )
    if not json:
        print_leftovers(leftovers)
        out.say(message)
    return PruneAnswer(
        command="prune",
        outcome=Ending.DONE,
        exit_code=0,
        message=message,
        removed=apply,
        leftovers=[
            LeftoverAnswer(
                kind=one.kind, name=one.name, days=round(one.days, 1), megabytes=one.megabytes
            )
            for one in leftovers
        ],
    )
