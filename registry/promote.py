"""Stage ``promote``: moves the aliases so that the move can be rolled back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from distill_tasks.core.decisions import log_decision
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.results.review import Promotion, Review
from distill_tasks.stages.stage import stage
from registry.aliases import (
    CHAMPION,
    PREVIOUS,
    Move,
    Registered,
    aliases_of,
    cross_out,
    find_unfinished,
    finish_move,
    move_aliases,
    stay,
)
from registry.gate import read_gate
from registry.history import Event, History, find_former, name_user
from registry.lease import lease
from registry.review import ask_for_review
from registry.served import open_served

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.results.review import GateReport
    from registry.review import Decision


class ChampionChangedError(PotstillError):
    """The champion is no longer the one that a version was compared to."""


def promote_version(
    client: MlflowClient,
    registered: Registered,
    gate: GateReport,
    *,
    approval: Decision | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Make a version champion if its gate report allows it; the former champion becomes previous.

    ``approval`` is a person's, who may override a report that refuses.

    Raises ChampionChangedError if the champion has changed since the report was made, and
    PotstillError if no comparison is on record.
    """
    aliases = aliases_of(client, registered.model)
    allowed = gate.promote or (approval is not None and bool(approval.override))
    if not allowed or aliases.get(CHAMPION) == registered.version:
        return stay(registered, aliases, gate.reason)
    if dry_run:
        _check_basis(client, registered, gate, kept=gate)
        move = _plan(client, registered, gate, approval)
        return describe_move(registered.model, move, gate.reason, dry_run)
    with lease(client, registered.model):
        _check_basis(client, registered, gate, kept=read_gate(client, registered))
        move = _plan(client, registered, gate, approval)
        move_aliases(client, registered.model, move)
    cross_out(client, registered.model, move)
    return describe_move(registered.model, move, gate.reason, dry_run)


def _plan(
    client: MlflowClient, registered: Registered, gate: GateReport, approval: Decision | None
) -> Move:
    """Return the change of champion, with its line in the history."""
    version = client.get_model_version(registered.model, str(registered.version))
    event = Event(
        "promoted",
        registered.version,
        f"{approval}; {gate.reason}" if approval else gate.reason,
        before=gate.compared_to,
        verdict=gate.verdict,
        look=gate.look.number if gate.look else None,
        run=version.run_id or None,
        by=approval.by if approval else name_user(),
    )
    return Move("promotion", registered.version, gate.compared_to, event)


def _check_basis(
    client: MlflowClient, registered: Registered, gate: GateReport, kept: GateReport | None
) -> None:
    """Raise PotstillError unless a version was compared, on record, with the present champion."""
    champion = aliases_of(client, registered.model).get(CHAMPION)
    if gate.version != registered.version or gate.compared_to != champion:
        raise ChampionChangedError(
            f"Version {registered.version} was compared to champion {gate.compared_to}, but the "
            f"champion is {champion} now. Run `potstill promote distill.yaml` again to compare "
            "afresh."
        )
    if kept is None or (kept.basis, kept.compared_to) != (gate.basis, champion):
        raise PotstillError(
            f"No comparison of version {registered.version} with champion {champion} is on record, "
            "so it cannot be promoted. Run `potstill promote distill.yaml`."
        )


def finish_promotion(client: MlflowClient, model: str, dry_run: bool = False) -> Promotion | None:
    """Complete a change of champion that was interrupted; return it if there was one."""
    move = find_unfinished(client, model)
    if move is not None and not dry_run:
        with lease(client, model):
            move = finish_move(client, model)  # another process may have completed it by now
        cross_out(client, model, move)
    if move is None:
        return None
    return describe_completed(model, move, dry_run)


@dataclass(frozen=True)
class Wish:
    """A person's wish to go back: to which version, and why."""

    to: int | None = None
    """The version; None for the previous champion."""
    why: str = "rolled back"
    by: str = field(default_factory=name_user)


def roll_back(
    client: MlflowClient, model: str, wish: Wish = Wish(), dry_run: bool = False
) -> Promotion:
    """Make a former champion champion again; the present one becomes previous.

    Runs do not promote the version that was rolled back again, until a person names it. If an
    earlier rollback was interrupted, it is completed, and no second one is started.

    Raises InputError if there is no former champion, if the version never was one, or if it cannot
    be opened any more.
    """
    if dry_run:
        unfinished = find_unfinished(client, model)
        if unfinished is not None:
            return describe_completed(model, unfinished, dry_run)
        return describe_move(model, _plan_back(client, model, wish), wish.why, dry_run)
    with lease(client, model):
        completed = finish_move(client, model)
        if completed is not None and completed.kind == "roll back":
            move, found = completed, describe_completed(model, completed, dry_run)
        else:
            move = _plan_back(client, model, wish)
            move_aliases(client, model, move)
            found = describe_move(model, move, wish.why, dry_run)
    cross_out(client, model, move)
    log_decision(
        "rollback", "rolled_back", model=model, version=move.champion, by=wish.by, reason=wish.why
    )
    return found


def _plan_back(client: MlflowClient, model: str, wish: Wish) -> Move:
    """Return the way back to a version that was champion once, and still answers."""
    aliases = aliases_of(client, model)
    champion, back = aliases.get(CHAMPION), wish.to or aliases.get(PREVIOUS)
    if champion is None or back is None:
        raise InputError(
            f"{model} has no {PREVIOUS if champion else CHAMPION} version, so there is nothing to "
            "roll back to."
        )
    former = sorted(find_former(History(client, model).read(), aliases))
    if back not in former:
        raise InputError(
            f"Version {back} of {model} never was champion, so it is not gone back to. Champions "
            f"before: {', '.join(map(str, former)) or 'none'}."
        )
    open_served(Registered(model, back, reused=True).uri).answer(["some text"])
    event = Event("rolled back", back, wish.why, before=champion, by=wish.by)
    return Move("roll back", back, champion, event)


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
    config: DistillConfig,
    registered: Registered,
    gate: GateReport,
    *,
    approval: Decision | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Promote a version if its gate report allows it, and people, where the configuration asks."""
    promotion = _promote_as_configured(config, registered, gate, approval, dry_run)
    log_decision(
        "promote",
        Review(promotion, gate).name.lower().replace(" ", "_"),
        model=registered.model,
        version=registered.version,
        champion=promotion.champion,
        reason=promotion.reason,
    )
    return promotion


def _promote_as_configured(
    config: DistillConfig,
    registered: Registered,
    gate: GateReport,
    approval: Decision | None,
    dry_run: bool,
) -> Promotion:
    client = MlflowClient(config.tracking.uri)
    mode = config.registry.promote
    if mode == "auto" or (mode == "review" and approval is not None):
        return promote_version(client, registered, gate, approval=approval, dry_run=dry_run)
    if mode == "review" and not dry_run:
        ask_for_review(client, registered, gate)
    return _hold_back(client, registered, gate, waits=mode == "review" and gate.promote)


def _hold_back(
    client: MlflowClient, registered: Registered, gate: GateReport, waits: bool
) -> Promotion:
    """Return that a version stays what it is, whatever its gate report says."""
    reason = gate.reason
    if gate.promote:
        held = "waits for a review" if waits else "registry.promote is never"
        reason = f"version {registered.version} passed the gate and {held}: {reason}"
    return stay(registered, aliases_of(client, registered.model), reason, waits=waits)
