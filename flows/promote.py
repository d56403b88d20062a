"""Review of registered versions: the gate again, on the present rows, then the aliases."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()  # a worker loads this file alone

from typing import TYPE_CHECKING, Literal

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from distill_tasks.config import DistillConfig
from distill_tasks.core.run_lock import WAIT_MINUTES
from distill_tasks.results.review import Promotion, Review
from distill_tasks.stages.prepare import prepare
from distill_tasks.stages.report import show_gate
from distill_tasks.tracking.store import open_store
from flows.deployed import ConfigOrPath, Overrides, alone, name_run, open_config
from flows.outcome import end_as
from registry.aliases import Registered, choose_version, give_another_chance
from registry.gate import gate
from registry.promote import ChampionChangedError, finish_promotion
from registry.promote import promote as promote_if_allowed
from registry.review import (
    REJECTED,
    Decision,
    close_review,
    decide_review,
    find_decided,
    find_nothing,
    note_approval,
    reject,
    reopen_review,
)

if TYPE_CHECKING:
    from distill_tasks.results.references import CorpusReference

MOST_ATTEMPTS = 3
"""How often a version is judged again because the champion changed in between."""
DAY_S = 24 * 3600
SECONDS_BETWEEN_LOOKS = 2
"""How often a paused run looks whether its form was filled in."""


class ReviewForm(RunInput):
    """The form on the page of a paused flow run, for the person who reviews a version."""

    decision: Literal["approved", "rejected"]
    by: str = Field(min_length=1, description="Who decides.")
    why: str = Field("", description="Why.")
    override: str = Field("", description="Why it may be promoted without passing the gate.")


@flow(name="promote", flow_run_name=name_run)
def promote(
    config: ConfigOrPath,
    version: int | None = None,
    dry_run: bool = False,
    wait_minutes: float = WAIT_MINUTES,
    ask: bool = False,
    decided_only: bool = False,
    overrides: Overrides | None = None,
) -> Promotion:
    """Carry out what people decided; judge a version, by default the challenger, and promote it.

    ``config`` is a configuration, or the path of one from the working directory; ``overrides`` set
    some of its keys anew, as in ``{"registry.allowed_drop": 0}``. Another run in the same
    ``work_dir`` is waited for, for so many minutes at most. ``ask`` pauses the run, for a day at
    most, with a form for the review that a version waits for. ``decided_only`` judges nothing about
    which nobody has decided, so that it may be asked for every few minutes.
    """
    settings = open_config(config, overrides=overrides)
    if decided_only and version is None:
        idle = find_nothing(open_store(settings.tracking), settings.registry.model, True)
        if idle is not None:
            return end_as(idle, Review(idle))
    review = _review(settings, version, dry_run, wait_minutes)
    if ask and review.promotion.waits and review.gate is not None:
        reviewed = Registered(settings.registry.model, review.gate.version, reused=True)
        decide_review(open_store(settings.tracking), reviewed, ask_person(review))
        review = _review(settings, version, dry_run, wait_minutes)
    return end_as(review.promotion, review)


def ask_person(review: Review) -> Decision:
    """Pause the flow run until somebody has filled in its form."""
    described = ReviewForm.with_initial_data(description=f"{review.promotion.model}: {review}.")
    form = pause_flow_run(
        wait_for_input=described, timeout=DAY_S, poll_interval=SECONDS_BETWEEN_LOOKS
    )
    return Decision(form.decision, form.by, form.why, form.override)


def _review(
    config: DistillConfig, version: int | None, dry_run: bool, wait_minutes: float
) -> Review:
    with alone(config, f"promote {config.registry.model}", wait_minutes):
        return review_versions(config, version, dry_run)


def review_versions(config: DistillConfig, version: int | None, dry_run: bool) -> Review:
    """Carry out what people decided about versions; if nothing, judge one on the present rows."""
    client = open_store(config.tracking)
    idle = find_nothing(client, config.registry.model) if version is None else None
    if idle is not None:
        return Review(idle)
    corpus = prepare(config)
    completed = finish_promotion(client, config.registry.model, dry_run)
    if completed is not None:
        return Review(completed)
    decided = [] if dry_run else find_decided(client, config.registry.model)
    reviews = [carry_out(config, corpus, *one) for one in decided]
    if reviews and version is None:
        return reviews[-1]
    registered = choose_version(client, config.registry.model, version)
    if version is not None and not dry_run:
        give_another_chance(client, registered)
    return gate_and_promote(config, corpus, registered, dry_run=dry_run)


def carry_out(
    config: DistillConfig, corpus: CorpusReference, registered: Registered, decision: Decision
) -> Review:
    """Promote a version that a person approved, if the gate still lets it pass; or reject it."""
    client = open_store(config.tracking)
    if decision.decision == REJECTED:
        return Review(reject(client, registered, decision))
    note_approval(client, registered, decision)
    give_another_chance(client, registered)
    review = gate_and_promote(config, corpus, registered, approval=decision)
    if review.promotion.moved or review.promotion.reused:
        close_review(client, registered, decision, f"Promoted: {decision}.")
    else:
        reopen_review(client, registered, f"Approved, but {review}.")
    return review


def gate_and_promote(
    config: DistillConfig,
    corpus: CorpusReference,
    registered: Registered,
    *,
    approval: Decision | None = None,
    dry_run: bool = False,
) -> Review:
    """Judge a version and promote it if it may be; again where the champion changed in between."""
    for attempt in range(1, MOST_ATTEMPTS + 1):
        answer = gate(config, corpus, registered, dry_run)
        try:
            promotion = promote_if_allowed(
                config, registered, answer, approval=approval, dry_run=dry_run
            )
        except ChampionChangedError:
            if attempt == MOST_ATTEMPTS:
                raise
            continue
        review = Review(promotion, answer)
        break
    show_gate(review)
    return review
