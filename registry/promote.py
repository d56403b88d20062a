"""Stage ``promote``: the aliases move, the way back is kept."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient

from distill_tasks.config import DistillConfig
from distill_tasks.errors import InputError, PotstillError
from distill_tasks.stage import stage
from registry.aliases import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    ROLLED_BACK,
    Registered,
    aliases_of,
    give_another_chance,
)
from registry.gate import GateReport


@dataclass(frozen=True)
class Promotion:
    """What happened to the champion, or would happen."""

    model: str
    champion: int | None
    previous: int | None
    moved: bool
    reason: str
    reused: bool
    would_move: bool = False
    """Whether this was a dry run of a move."""


def promote_version(
    client: MlflowClient, registered: Registered, gate: GateReport, dry_run: bool = False
) -> Promotion:
    """Make a version champion if its gate report allows it; the former champion becomes previous.

    Raises PotstillError if the champion is another one than the report was written against.
    """
    aliases = aliases_of(client, registered.model)
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if not gate.promote or champion == registered.version:
        reused = champion == registered.version
        return Promotion(registered.model, champion, previous, False, gate.reason, reused)
    if gate.version != registered.version or gate.compared_to != champion:
        raise PotstillError(
            f"Version {registered.version} was compared to champion {gate.compared_to}, but the "
            f"champion is {champion} now. Run `potstill promote` again to compare afresh."
        )
    if not dry_run:
        if champion is not None:
            client.set_registered_model_alias(registered.model, PREVIOUS, str(champion))
        client.set_registered_model_alias(registered.model, CHAMPION, str(registered.version))
        if aliases.get(CHALLENGER) == registered.version:
            client.delete_registered_model_alias(registered.model, CHALLENGER)
    return Promotion(
        registered.model,
        registered.version,
        champion,
        moved=not dry_run,
        reason=gate.reason,
        reused=False,
        would_move=dry_run,
    )


def roll_back(client: MlflowClient, model: str, dry_run: bool = False) -> Promotion:
    """Make the previous champion champion again; the present one becomes previous.

    No run promotes the one taken back again until a person asks for it by its version.

    Raises InputError if there is no previous champion.
    """
    aliases = aliases_of(client, model)
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if champion is None or previous is None:
        raise InputError(
            f"{model} has no {PREVIOUS if champion else CHAMPION} version, so there is nothing to "
            "roll back to."
        )
    if not dry_run:
        client.set_model_version_tag(model, str(champion), ROLLED_BACK, "true")
        give_another_chance(client, Registered(model, previous, reused=True))
        client.set_registered_model_alias(model, CHAMPION, str(previous))
        client.set_registered_model_alias(model, PREVIOUS, str(champion))
    return Promotion(
        model,
        previous,
        champion,
        moved=not dry_run,
        reason="rolled back",
        reused=False,
        would_move=dry_run,
    )


@stage("promote {registered.model} {registered.version}", retries=2)
def promote(
    config: DistillConfig, registered: Registered, gate: GateReport, dry_run: bool = False
) -> Promotion:
    """Promote a version if its gate report allows it."""
    return promote_version(MlflowClient(config.tracking.uri), registered, gate, dry_run)
