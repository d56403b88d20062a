"""Review of registered versions: the gate again, on the present rows, then the aliases."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()  # a worker loads this file alone

from prefect import flow

from distill_tasks.config import DistillConfig
from distill_tasks.core.run_lock import WAIT_MINUTES
from distill_tasks.core.store import Store
from distill_tasks.results.review import Promotion, Review
from distill_tasks.stages.prepare import prepare
from distill_tasks.stages.report import show_gate
from distill_tasks.tracking.store import open_store
from flows.deployed import ConfigOrPath, name_run, open_config, show_lines
from flows.outcome import end_as
from registry.aliases import choose_version, give_another_chance
from registry.gate import gate
from registry.promote import finish_promotion
from registry.promote import promote as promote_if_allowed


@flow(name="promote", flow_run_name=name_run)
def promote(
    config: ConfigOrPath,
    version: int | None = None,
    dry_run: bool = False,
    wait_minutes: float = WAIT_MINUTES,
) -> Promotion:
    """Compare a version, by default the challenger, with the champion; promote it if it wins.

    ``config`` is a configuration, or the path of one from the working directory. Another run in
    the same ``work_dir`` is waited for, for so many minutes at most.
    """
    settings = open_config(config)
    waiting = Store(settings.work_dir).lock(f"promote {settings.registry.model}", wait_minutes)
    with waiting, show_lines():
        review = review_version(settings, version, dry_run)
    return end_as(review.promotion, review)


def review_version(config: DistillConfig, version: int | None, dry_run: bool) -> Review:
    """Judge a version on the present rows and promote it if it wins."""
    corpus = prepare(config)
    client = open_store(config.tracking)
    completed = finish_promotion(client, config.registry.model, dry_run)
    if completed is not None:
        return Review(completed)
    registered = choose_version(client, config.registry.model, version)
    if version is not None and not dry_run:
        give_another_chance(client, registered)
    answer = gate(config, corpus, registered, dry_run)
    review = Review(promote_if_allowed(config, registered, answer, dry_run), answer)
    show_gate(review)
    return review
