"""The versions of a model that matter now: champion, previous, challenger, and who waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_tasks.core.errors import InputError
from registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, aliases_of
from registry.history import CHANGES, Event, History, find_hand_move
from registry.review import NOTE, PENDING, REVIEW, read_word

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Waiting:
    """A version about which a person has to decide, or has decided."""

    version: int
    decision: str
    """What was written about it: `pending`, or a decision that `promote` has yet to carry out."""
    note: str
    """What its tag says to whoever decides."""


@dataclass(frozen=True)
class Lineup:
    """The versions of a model that matter now."""

    champion: int | None = None
    since: Event | None = None
    """How the champion became one; None where nobody wrote that down."""
    previous: int | None = None
    challenger: int | None = None
    waiting: tuple[Waiting, ...] = ()


def read_lineup(client: MlflowClient, model: str) -> Lineup:
    """Return the versions of a model that matter now; none where it is not registered."""
    try:
        aliases = aliases_of(client, model)
    except InputError:
        return Lineup()
    champion = aliases.get(CHAMPION)
    return Lineup(
        champion=champion,
        since=_find_change(History(client, model).read(), champion),
        previous=aliases.get(PREVIOUS),
        challenger=aliases.get(CHALLENGER),
        waiting=_list_waiting(client, model),
    )


def _find_change(events: list[Event], champion: int | None) -> Event | None:
    changes = [event for event in events if event.kind in CHANGES]
    if champion is None or not changes or find_hand_move(events, champion) is not None:
        return None
    return changes[-1]


def _list_waiting(client: MlflowClient, model: str) -> tuple[Waiting, ...]:
    found = client.search_model_versions(f"name = '{model}' and tags.`{REVIEW}` LIKE '%'")
    waiting = []
    for version in sorted(found, key=lambda one: int(one.version)):
        word = read_word(version.tags)
        if word is not None or version.tags[REVIEW].strip().lower() == PENDING:
            note = version.tags.get(NOTE, "")
            waiting.append(Waiting(int(version.version), word or PENDING, note))
    return tuple(waiting)
