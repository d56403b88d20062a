"""Versions of a registered model and their aliases: challenger, champion, previous."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from pydantic import TypeAdapter

from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.results.review import Promotion
from registry.history import Event, History
from registry.marks import mark_champion

logger = logging.getLogger("potstill")

CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS = "previous"
ROLLED_BACK = "potstill.rolled_back"
"""Tag of a version that a person rolled back: nightly runs may not promote it again."""
VERDICT = "potstill.verdict"
"""Tag with the verdict on a version's student against the same student without a teacher."""
CONTROL = "CONTROL"
"""The value of that tag where the version is the cheap control, which has no teacher."""
STATE = "gate"
"""Tag of a version for people: whether it passed the gate."""
STUDENT = "potstill.student"
"""Tag with the digest of a version's student, by which the version is found again."""
VERSIONS_AT_ONCE = 1_000
MOVE = "potstill.move"
"""Tag of a registered model whose aliases are being moved, as JSON; gone once they are."""


@dataclass(frozen=True)
class Registered:
    """A model version of the registry."""

    model: str
    version: int
    reused: bool

    @property
    def uri(self) -> str:
        """The address by which MLflow loads it."""
        return f"models:/{self.model}/{self.version}"


@dataclass(frozen=True)
class Move:
    """A change of champion: which version becomes champion, and which one previous."""

    kind: Literal["promotion", "roll back"]
    champion: int
    previous: int | None
    event: Event | None = None
    """Its line in the history; None for a move that this project did not begin."""


def stay(
    registered: Registered, aliases: Mapping[str, int], reason: str, *, waits: bool = False
) -> Promotion:
    """Return that the aliases of a model stay as they are, whatever was asked of a version."""
    champion = aliases.get(CHAMPION)
    return Promotion(
        registered.model,
        champion,
        aliases.get(PREVIOUS),
        moved=False,
        reason=reason,
        reused=champion == registered.version,
        waits=waits,
    )


def choose_version(client: MlflowClient, name: str, version: int | None) -> Registered:
    """Return the given version, or the challenger if none is given.

    Raises InputError if there is no such version.
    """
    chosen = aliases_of(client, name).get(CHALLENGER) if version is None else version
    if chosen is None or not has_version(client, name, chosen):
        known = shortlist([str(number) for number in sorted(read_versions(client, name))])
        found = "no challenger" if version is None else f"no version {version}"
        raise InputError(f"{name} has {found}; versions: {known}. Give one with --version.")
    return Registered(name, chosen, reused=True)


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the version of each alias of a registered model.

    Raises InputError if there is no such model.
    """
    return _read_aliases(get_model(client, name))


def find_missing(client: MlflowClient, name: str, alias: str) -> str | None:
    """Return in words which versions a model has where none has an alias; None where one has.

    Raises InputError if there is no such model.
    """
    aliases = aliases_of(client, name)
    if alias in aliases or find_unfinished(client, name) is not None:
        return None
    known = [f"version {version} is {other}" for other, version in sorted(aliases.items())]
    return f"{name} has no {alias} yet" + (f"; {' and '.join(known)}" if known else "")


def has_version(client: MlflowClient, name: str, version: int) -> bool:
    """Return whether a model has a version."""
    try:
        client.get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return False
    return True


def tags_of(client: MlflowClient, registered: Registered) -> dict[str, str]:
    """Return the tags of a version."""
    return dict(client.get_model_version(registered.model, str(registered.version)).tags)


def give_another_chance(client: MlflowClient, registered: Registered) -> None:
    """Remove the tag that a version was rolled back."""
    if ROLLED_BACK in tags_of(client, registered):
        client.delete_model_version_tag(registered.model, str(registered.version), ROLLED_BACK)


def move_aliases(client: MlflowClient, name: str, move: Move) -> None:
    """Make one version champion and another previous.

    The move is recorded first, so that `finish_move` can complete it after a kill at any point;
    `cross_out` ends it.
    """
    client.set_registered_model_tag(name, MOVE, json.dumps(asdict(move)))
    _carry_out(client, name, move)


def finish_move(client: MlflowClient, name: str) -> Move | None:
    """Complete a change of champion that was interrupted; return it if there was one.

    `cross_out` ends it.
    """
    move = find_unfinished(client, name)
    if move is not None:
        logger.warning("%s: an interrupted %s is completed", name, move.kind)
        _carry_out(client, name, move)
    return move


def cross_out(client: MlflowClient, name: str, move: Move | None) -> None:
    """Forget a move that was carried out: the last of all writes, after the lease is given back.

    A kill before it has the same command complete the move; a kill after it leaves nothing to do.
    Between them a second roll back would undo the first. A move that another process has begun
    since stays.
    """
    written = get_model(client, name).tags.get(MOVE)
    if move is None or written is None:
        return
    known = TypeAdapter(Move).validate_json(written)
    if replace(known, previous=move.previous) == move:  # a person may have deleted the previous
        client.delete_registered_model_tag(name, MOVE)


def find_unfinished(client: MlflowClient, name: str) -> Move | None:
    """Return the change of champion that was interrupted, if there is one.

    A champion that is also the previous version, or the challenger, counts as interrupted too,
    whoever moved the aliases.
    """
    model = get_model(client, name)
    if MOVE in model.tags:
        move = TypeAdapter(Move).validate_json(model.tags[MOVE])
        if has_version(client, name, move.champion):  # a person may have deleted it since
            keeps = move.previous is None or has_version(client, name, move.previous)
            return move if keeps else replace(move, previous=None)
    aliases = _read_aliases(model)
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if champion is None or champion not in (previous, aliases.get(CHALLENGER)):
        return None
    if champion != previous:
        return Move("promotion", champion, previous)
    versions = read_versions(client, name)
    taken_back = [n for n, tags in versions.items() if ROLLED_BACK in tags and n != champion]
    if taken_back:
        return Move("roll back", champion, max(taken_back))
    return Move("promotion", champion, None)


def _carry_out(client: MlflowClient, name: str, move: Move) -> None:
    """Perform every step of a move; steps may have been performed before."""
    if move.kind == "roll back":
        if move.previous is not None:
            client.set_model_version_tag(name, str(move.previous), ROLLED_BACK, "true")
        give_another_chance(client, Registered(name, move.champion, reused=True))
    client.set_registered_model_alias(name, CHAMPION, str(move.champion))
    if move.previous is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(move.previous))
    aliases = aliases_of(client, name)
    for alias in (PREVIOUS, CHALLENGER):
        if aliases.get(alias) == move.champion:
            client.delete_registered_model_alias(name, alias)
    mark_champion(client, name, move.champion)
    if move.event is not None:
        History(client, name).append(move.event)


def get_model(client: MlflowClient, name: str) -> RegisteredModel:
    """Return a registered model.

    Raises InputError if there is none of that name.
    """
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise InputError(
            f"There is no registered model {name!r}. Run `potstill run distill.yaml` first, or "
            "correct the name."
        ) from None


def _read_aliases(model: RegisteredModel) -> dict[str, int]:
    return {alias: int(version) for alias, version in model.aliases.items()}


def read_versions(client: MlflowClient, name: str) -> dict[int, dict[str, str]]:
    """Return the tags of every version of a model by its number."""
    return {int(version.version): dict(version.tags) for version in list_versions(client, name)}


def list_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return every version of a model, in the order of their numbers."""
    versions: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(
            f"name = '{name}'", max_results=VERSIONS_AT_ONCE, page_token=token
        )
        versions.extend(page)
        token = page.token
        if not token:
            return sorted(versions, key=lambda version: int(version.version))
