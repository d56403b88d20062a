"""Stage ``promote``: moves the aliases so that the move can be rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow import MlflowClient

from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.results.review import Promotion
from distill_tasks.stages.stage import stage
from registry.aliases import (
    CHAMPION,
    PREVIOUS,
    Move,
    Registered,
    aliases_of,
    find_unfinished,
    finish_move,
    move_aliases,
)
from registry.served import open_served

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.results.review import GateReport


def promote_version(
    client: MlflowClient, registered: Registered, gate: GateReport, dry_run: bool = False
) -> Promotion:
    """Make a version champion if its gate report allows it; the former champion becomes previous.

    Raises PotstillError if the champion has changed since the report was made.
    """
    aliases = aliases_of(client, registered.model)
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if not gate.promote or champion == registered.version:
        reused = champion == registered.version
        return Promotion(registered.model, champion, previous, False, gate.reason, reused)
    if gate.version != registered.version or gate.compared_to != champion:
        raise PotstillError(
            f"Version {registered.version} was compared to champion {gate.compared_to}, but the "
            f"champion is {champion} now. Run `potstill promote distill.yaml` again to compare "
            "afresh."
        )
    move = Move("promotion", registered.version, champion)
    if not dry_run:
        move_aliases(client, registered.model, move)
    return describe_move(registered.model, move, gate.reason, dry_run)


def finish_promotion(client: MlflowClient, model: str, dry_run: bool = False) -> Promotion | None:
    """Complete a change of champion that was interrupted; return it if there was one."""
    move = find_unfinished(client, model) if dry_run else finish_move(client, model)
    if move is None:
        return None
    return describe_completed(model, move, dry_run)


def roll_back(client: MlflowClient, model: str, dry_run: bool = False) -> Promotion:
    """Make the previous champion champion again; the present one becomes previous.

    Runs do not promote the version that was rolled back again, until a person names it. If an
    earlier rollback was interrupted, it is completed, and no second one is started.

    Raises InputError if there is no previous champion, or if it cannot be opened any more.
    """
    unfinished = find_unfinished(client, model) if dry_run else finish_move(client, model)
    if unfinished is not None and (dry_run or unfinished.kind == "roll back"):
        return describe_completed(model, unfinished, dry_run)
    aliases = aliases_of(client, model)
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if champion is None or previous is None:
        raise InputError(
            f"{model} has no {PREVIOUS if champion else CHAMPION} version, so there is nothing to "
            "roll back to."
        )
    open_served(Registered(model, previous, reused=True).uri).answer(["some text"])
    move = Move("roll back", previous, champion)
    if not dry_run:
        move_aliases(client, model, move)
    return describe_move(model, move, "rolled back", dry_run)


def describe_completed(model: str, move: Move, dry_run: bool) -> Promotion:
    """Return the result of completing an interrupted move, or what it would be."""
    reason = f"an interrupted {move.kind} {'would be' if dry_run else 'was'} completed"
    return describe_move(model, move, reason, dry_run)


def describe_move(model: str, move: Move, reason: str, dry_run: bool) -> Promotion:
    """Return the result of a move of the aliases, or what it would be."""
    return Promotion(
        model,
        move.champion,
        move.previous,
        moved=not dry_run,
        reason=reason,
        reused=False,
        would_move=dry_run,
    )


@stage("promote version {registered.version} if it won", retries=2)
def promote(
    config: DistillConfig, registered: Registered, gate: GateReport, dry_run: bool = False
) -> Promotion:
    """Promote a version if its gate report allows it."""
    return promote_version(MlflowClient(config.tracking.uri), registered, gate, dry_run)
