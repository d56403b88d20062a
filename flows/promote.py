"""Review of registered versions: the gate again, on the present rows, then the aliases."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()  # a worker loads this file alone

from prefect import flow

from distill_tasks.config import DistillConfig
from distill_tasks.core.run_lock import WAIT_MINUTES
from distill_tasks.core.store import Store
from distill_tasks.stages.prepare import prepare
from distill_tasks.tracking.store import open_store
from registry.aliases import choose_version, give_another_chance
from registry.gate import gate
from registry.promote import Promotion, finish_promotion
from registry.promote import promote as promote_if_allowed


@flow(name="promote", flow_run_name="{config.registry.model}")
def promote(
    config: DistillConfig,
    version: int | None = None,
    dry_run: bool = False,
    wait_minutes: float = WAIT_MINUTES,
) -> Promotion:
    """Compare a version, by default the challenger, with the champion; promote it if it wins.

    Another run in the same ``work_dir`` is waited for, for so many minutes at most.
    """
    with Store(config.work_dir).lock(f"promote {config.registry.model}", wait_minutes):
        corpus = prepare(config)
        client = open_store(config.tracking)
        completed = finish_promotion(client, config.registry.model, dry_run)
        if completed is not None:
            return completed
        registered = choose_version(client, config.registry.model, version)
        if version is not None and not dry_run:
            give_another_chance(client, registered)
        verdict = gate(config, corpus, registered, dry_run)
        return promote_if_allowed(config, registered, verdict, dry_run)
