"""A person's review of a version: tags that say what is asked for, what was decided, and by whom.

A person decides by setting the tag `review` to `approved` or `rejected` in MLflow, or with
`potstill review`. Whoever runs `promote` next carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distill_tasks.core.decisions import log_decision
from distill_tasks.core.errors import InputError, did_you_mean
from distill_tasks.results.review import Promotion
from registry.aliases import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    STATE,
    Registered,
    aliases_of,
    find_missing,
    tags_of,
)
from registry.history import Event, History

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient

    from distill_tasks.results.review import GateReport

REVIEW = "review"
"""Tag of a version: what its review has come to. A person sets it to approved or rejected."""
BY = "review.by"
REASON = "review.reason"
OVERRIDE = "review.override"
"""Tag with the reason for promoting a version that did not pass the gate."""
NOTE = "review.note"
"""Tag with our answer to whoever set the tag `review`."""
DONE = "review.done"
"""Tag with the decision that was carried out."""
PENDING = "pending"
APPROVED: Literal["approved"] = "approved"
REJECTED: Literal["rejected"] = "rejected"
DECISIONS = (APPROVED, REJECTED)
UNNAMED = "somebody in MLflow"


@dataclass(frozen=True)
class Decision:
    """What a person decided about a version."""

    decision: Literal["approved", "rejected"]
    by: str
    why: str = ""
    override: str = ""
    """Why it may be promoted although it did not pass the gate; empty: it may not."""

    def __str__(self) -> str:
        because = f": {self.why}" if self.why else ""
        overridden = f", gate overridden: {self.override}" if self.override else ""
        return f"{self.decision} by {self.by}{because}{overridden}"


def ask_for_review(client: MlflowClient, registered: Registered, gate: GateReport) -> None:
    """Ask people to review a version that passed the gate, unless they were asked already."""
    if REVIEW in tags_of(client, registered):
        return
    event = Event("review pending", registered.version, gate.brief)
    History(client, registered.model).append(event)
    how = f"Set {REVIEW} to {APPROVED} or {REJECTED}, and {BY} and {REASON} to say who and why."
    _set_tags(client, registered, {NOTE: how, REVIEW: PENDING})


def decide_review(client: MlflowClient, registered: Registered, decision: Decision) -> None:
    """Write down a person's decision; `promote` carries it out.

    Raises InputError for the approval of a version that did not pass the gate, unless it is
    overridden.
    """
    refusal = find_refusal(tags_of(client, registered), decision)
    if refusal is not None:
        raise InputError(f"Version {registered.version} of {registered.model}: {refusal}")
    said = {BY: decision.by, REASON: decision.why, OVERRIDE: decision.override}
    given = {name: text for name, text in said.items() if text}
    if DONE in tags_of(client, registered):  # it is decided again
        client.delete_model_version_tag(registered.model, str(registered.version), DONE)
    _set_tags(client, registered, {**given, REVIEW: decision.decision})


def find_refusal(tags: dict[str, str], decision: Decision) -> str | None:
    """Return why a decision cannot be carried out; None if it can."""
    state = tags.get(STATE)
    if decision.decision == REJECTED or decision.override or state == "passed":
        return None
    said = f"its gate is {state}" if state else "the gate has not judged it yet"
    return (
        f"{said}, so its approval needs a reason: `potstill review … --approve --override REASON`, "
        f"or the tag {OVERRIDE}."
    )


def read_decision(client: MlflowClient, registered: Registered) -> Decision | None:
    """Return what a person decided about a version; None where nobody has.

    A word in the tag that is no decision, or an approval that cannot be carried out, is answered
    by a tag that says so.
    """
    tags = tags_of(client, registered)
    word = read_word(tags)
    if word is None:
        return None
    if word not in DECISIONS:
        meant = did_you_mean(word, DECISIONS)
        note = f"{REVIEW}={tags[REVIEW]!r} is no decision{meant}: write {APPROVED} or {REJECTED}."
        reopen_review(client, registered, note)
        return None
    decision = Decision(
        APPROVED if word == APPROVED else REJECTED,
        tags.get(BY) or UNNAMED,
        tags.get(REASON, ""),
        tags.get(OVERRIDE, ""),
    )
    refusal = find_refusal(tags, decision)
    if refusal is not None:
        reopen_review(client, registered, refusal)
        return None
    return decision


def read_word(tags: Mapping[str, str]) -> str | None:
    """Return what a person wrote for a decision that was not carried out; None if nothing."""
    word = tags.get(REVIEW, PENDING).strip().lower()
    return None if word in (PENDING, tags.get(DONE)) else word


def find_decided(client: MlflowClient, model: str) -> list[tuple[Registered, Decision]]:
    """Return every version of a model that a person decided about, the oldest first."""
    found = client.search_model_versions(f"name = '{model}' and tags.`{REVIEW}` LIKE '%'")
    written = sorted(
        int(version.version) for version in found if read_word(version.tags) is not None
    )
    versions = [Registered(model, number, reused=True) for number in written]
    decided = [(version, read_decision(client, version)) for version in versions]
    return [(version, decision) for version, decision in decided if decision is not None]


def note_approval(client: MlflowClient, registered: Registered, decision: Decision) -> None:
    """Write into the history that a person approved a version."""
    said = [decision.why, f"gate overridden: {decision.override}" if decision.override else ""]
    why = "; ".join(part for part in said if part)
    event = Event("approved", registered.version, why or "no reason given", by=decision.by)
    History(client, registered.model).append(event)
    _log(registered, event)


def reject(client: MlflowClient, registered: Registered, decision: Decision) -> Promotion:
    """Carry out a rejection: the version is challenger no more, and its history says why."""
    why = decision.why or "no reason given"
    event = Event("rejected", registered.version, why, by=decision.by)
    History(client, registered.model).append(event)
    _log(registered, event)
    aliases = aliases_of(client, registered.model)
    if aliases.get(CHALLENGER) == registered.version:
        client.delete_registered_model_alias(registered.model, CHALLENGER)
    close_review(client, registered, decision, f"Rejected by {decision.by}: {why}.")
    reason = f"version {registered.version} was {decision}"
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    return Promotion(registered.model, champion, previous, False, reason, reused=False)


def _log(registered: Registered, event: Event) -> None:
    log_decision(
        "review",
        event.kind,
        model=registered.model,
        version=event.version,
        by=event.by,
        reason=event.why,
    )


def close_review(
    client: MlflowClient, registered: Registered, decision: Decision, note: str
) -> None:
    """Say on a version that a decision about it was carried out."""
    _set_tags(client, registered, {NOTE: note, DONE: decision.decision})


def reopen_review(client: MlflowClient, registered: Registered, note: str) -> None:
    """Ask again for a decision that could not be carried out, and say why not."""
    _set_tags(client, registered, {NOTE: note, REVIEW: PENDING})


def _set_tags(client: MlflowClient, registered: Registered, tags: dict[str, str]) -> None:
    """Set tags of a version in their order: the last is what others wait for."""
    for name, text in tags.items():
        client.set_model_version_tag(registered.model, str(registered.version), name, text)


def find_nothing(client: MlflowClient, name: str, decided_only: bool = False) -> Promotion | None:
    """Return why there is nothing to judge, as before the first distillation; None if there is.

    With ``decided_only`` a challenger about which nobody has decided is nothing to judge either.
    """
    try:
        why, aliases = find_missing(client, name, CHALLENGER), aliases_of(client, name)
    except InputError as error:  # no model of that name yet
        why, aliases = str(error), {}
    if aliases and find_decided(client, name):
        return None
    if why is None and not decided_only:
        return None
    why = why or "nobody has approved or rejected a version since"
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    return Promotion(name, champion, previous, moved=False, reason=why, reused=False, idle=True)
