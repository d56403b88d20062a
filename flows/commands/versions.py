"""Commands about the versions of a registered model: review, rollback, history."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from distill_tasks.core.errors import InputError
from flows.answers import Answer, Ending
from flows.commands.checks import say_nothing_to_do
from flows.commands.options import DryRun, Json, TrackingUri
from flows.printing import out, print_history, print_promotion
from flows.version_answers import EventAnswer, HistoryAnswer, ReviewAnswer, answer_promotion

Model = Annotated[
    str, Parameter(help="The registered model's name, or a distill.yaml that names it.")
]
By = Annotated[str | None, Parameter(help="Who decides; the user of this process by default.")]


def review(
    model: Model,
    *,
    version: Annotated[int | None, Parameter(help="Version; the challenger by default.")] = None,
    approve: Annotated[bool, Parameter(help="It may become champion.", negative="")] = False,
    reject: Annotated[bool, Parameter(help="It may not become champion.", negative="")] = False,
    by: By = None,
    why: Annotated[str, Parameter(help="Why, for the history.")] = "",
    override: Annotated[
        str, Parameter(help="Why it may be promoted although it did not pass the gate.")
    ] = "",
    tracking_uri: TrackingUri = None,
    json: Json = False,
) -> Answer:
    """Approve or reject a version that waits for a review; `promote` then carries it out.

    Example: potstill review reuters-r8 --approve --by Ada --why "flips read, all fine"
    """
    if approve == reject:
        raise InputError("Give either --approve or --reject.")
    from registry.addresses import open_model

    client, name = open_model(model, tracking_uri)
    from registry.aliases import choose_version
    from registry.history import name_user
    from registry.review import Decision, decide_review

    registered = choose_version(client, name, version)
    word = Decision("approved" if approve else "rejected", by or name_user(), why, override)
    decide_review(client, registered, word)
    message = f"Version {registered.version} of {name} is {word}. `promote` carries it out."
    if not json:
        out.say(message)
    return ReviewAnswer(
        command="review",
        outcome=Ending.DONE,
        exit_code=0,
        message=message,
        model=name,
        version=registered.version,
        decision=word.decision,
    )


def rollback(
    model: Model,
    *,
    to: Annotated[
        int | None, Parameter(help="A version that was champion once; the previous by default.")
    ] = None,
    why: Annotated[str, Parameter(help="Why, for the history.")] = "no reason given",
    by: By = None,
    tracking_uri: TrackingUri = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> Answer:
    """Make a former champion champion again; a second roll back returns.

    Example: potstill rollback reuters-r8 --why "wrong on invoices since Monday"
    """
    from registry.addresses import open_model

    client, name = open_model(model, tracking_uri)
    from registry.aliases import CHAMPION, PREVIOUS, find_missing

    absent = find_missing(client, name, CHAMPION)
    if absent is None and to is None:
        absent = find_missing(client, name, PREVIOUS)
    if absent is not None:
        return say_nothing_to_do("rollback", f"Nothing to roll back to: {absent}.", json)
    from registry.history import name_user
    from registry.promote import Wish, roll_back

    promotion = roll_back(client, name, Wish(to, why, by or name_user()), dry_run)
    if not json:
        print_promotion(promotion)
    ending = Ending.WOULD_ROLL_BACK if dry_run else Ending.ROLLED_BACK
    return answer_promotion("rollback", promotion, ending)


def history(model: Model, *, tracking_uri: TrackingUri = None, json: Json = False) -> Answer:
    """Print every decision about the versions of a model, and how often rows were looked at.

    Example: potstill history reuters-r8
    """
    from registry.addresses import open_model

    client, name = open_model(model, tracking_uri)
    from distill_tasks.scoring.looks import alpha_left
    from registry.aliases import CHAMPION, aliases_of
    from registry.history import History, find_hand_move

    table = History(client, name)
    events, looks = table.read(), table.count_all_looks()
    moved = find_hand_move(events, aliases_of(client, name).get(CHAMPION))
    events = [*events, moved] if moved else events
    if not json:
        print_history(name, events, looks)
    return HistoryAnswer(
        command="history",
        outcome=Ending.DONE,
        exit_code=0,
        message=f"{len(events)} events of {name}.",
        model=name,
        events=[EventAnswer(**vars(event)) for event in events],
        looks=looks,
        alpha_left={rows: alpha_left(number) for rows, number in looks.items()},
    )
