"""What runs, what is done, what the next run reuses, who waits for a review, and who is champion.

Nothing here needs Prefect's server, reads rows, asks a teacher or waits for an MLflow that is gone.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.core.progress import list_running
from distill_tasks.core.run_lock import Holder, find_holder
from distill_tasks.core.run_status import read_status
from distill_tasks.results.holdings import find_holdings
from flows.answers import Ending
from flows.status_answers import (
    ChampionAnswer,
    PastRunAnswer,
    RunningAnswer,
    StatusAnswer,
    StoreAnswer,
    TrainingAnswer,
    WaitingAnswer,
)

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.tracking.past_runs import PastRun
    from registry.lineup import Lineup, Waiting

RUNNING = "RUNNING"


def gather_status(config: DistillConfig, written: Path) -> StatusAnswer:
    """Return how things stand with a configuration; ``written`` is its file."""
    from distill_tasks.tracking.quick import UnansweredError

    running, unanswered = find_running(Path(config.work_dir)), None
    try:
        runs, lineup = _ask_mlflow(config)
    except UnansweredError as error:
        from registry.lineup import Lineup

        runs, lineup, unanswered = [], Lineup(), str(error)
    if running is not None and runs and runs[0].status == RUNNING:
        running = running.model_copy(update={"link": runs[0].link})
    champion = _describe_champion(config, lineup)
    return StatusAnswer(
        command="status",
        outcome=Ending.DONE,
        exit_code=0,
        message=_sum_up(running, len(lineup.waiting), unanswered),
        name=config.name,
        work_dir=config.work_dir,
        running=running,
        store=StoreAnswer(**vars(find_holdings(config))),
        model=config.registry.model,
        unanswered=unanswered,
        runs=[_describe_run(run, running is not None) for run in runs],
        champion=champion,
        previous=lineup.previous,
        challenger=lineup.challenger,
        waiting=[_describe_waiting(config, one, written) for one in lineup.waiting],
    )


def find_running(store: Path) -> RunningAnswer | None:
    """Return the run that works in a store; None if none does."""
    holder = find_holder(store)
    if holder is None:
        return None
    named = holder if isinstance(holder, Holder) else None
    status = read_status(store)
    flow_run = status.flow_run if status else None
    return RunningAnswer(
        run=named.run if named else str(holder),
        pid=named.pid if named else None,
        host=named.host if named else None,
        since=named.since if named else None,
        stage=status.stage if status else None,
        stage_number=status.number if status else None,
        stages=status.stages if status else None,
        seconds_left=status.seconds_left if status else None,
        training=[
            TrainingAnswer(name=one.name, step=one.step, steps=one.steps)
            for one in list_running(store)
        ],
        flow_run=flow_run.id if flow_run else None,
        flow_run_link=flow_run.link if flow_run else None,
        link=None,
    )


def _ask_mlflow(config: DistillConfig) -> tuple[list[PastRun], Lineup]:
    """Return the last runs and the versions that matter now."""
    from distill_tasks.tracking.past_runs import list_past_runs
    from distill_tasks.tracking.quick import asked_quickly
    from registry.lineup import Lineup, read_lineup

    with asked_quickly(config.tracking) as client:
        if client is None:
            return [], Lineup()
        return list_past_runs(client, config), read_lineup(client, config.registry.model)


def _sum_up(running: RunningAnswer | None, waiting: int, unanswered: str | None) -> str:
    parts = ["Nothing is running" if running is None else f"{running.run} is running"]
    if waiting:
        parts.append(f"waiting for somebody: {waiting}")
    if unanswered is not None:
        parts.append(unanswered)
    return f"{'; '.join(parts)}."


def _describe_run(run: PastRun, somebody_runs: bool) -> PastRunAnswer:
    """Return a past run; one that says it runs while nobody works in the store was killed."""
    lost = run.status == RUNNING and not somebody_runs
    return PastRunAnswer(**vars(run) | ({"status": "INTERRUPTED"} if lost else {}))


def _describe_champion(config: DistillConfig, lineup: Lineup) -> ChampionAnswer | None:
    if lineup.champion is None:
        return None
    since = lineup.since
    return ChampionAnswer(
        version=lineup.champion,
        since=since.at if since else None,
        by=since.by if since else None,
        why=since.why if since else None,
        link=_link_version(config, lineup.champion),
    )


def _describe_waiting(config: DistillConfig, one: Waiting, written: Path) -> WaitingAnswer:
    file = shlex.quote(str(written))
    asks = f"potstill review {file} --version {one.version} --approve --why REASON"
    return WaitingAnswer(
        version=one.version,
        decision=one.decision,
        note=one.note,
        command=asks if one.decision == "pending" else f"potstill promote {file}",
        link=_link_version(config, one.version),
    )


def _link_version(config: DistillConfig, version: int) -> str:
    from distill_tasks.tracking.links import version_link

    return version_link(config.tracking.ui_address, config.registry.model, version)
