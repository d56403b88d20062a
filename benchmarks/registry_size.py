"""What do gate and promotion cost in a registry of 1,000 versions, beside one of 10? On sqlite.

A model of each size is made with versions as Potstill registers them: their tags, and the events of
their registration and gate in the history. Then what the gate and the promotion ask of the registry
is timed, the two sizes in turn, without the models' answers, which cost the same. Prints a table
and, as its last line, one JSON object: ``gate_adds_s`` and ``promotion_adds_s``, the medians of
1,000 versions less those of 10, in seconds.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable

import mlflow
from mlflow import MlflowClient

from distill_tasks.config import TrackingConfig
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.review import GateReport
from distill_tasks.tracking.store import check_tracking
from registry.aliases import CHAMPION, STUDENT, VERDICT, Registered, aliases_of, choose_version
from registry.gate import keep_gate, note_hand_move, read_gate
from registry.history import Event, History
from registry.promote import finish_promotion, promote_version
from registry.review import find_decided

SIZES = (10, 1_000)
ROUNDS = 5


def main() -> None:
    """Fill two registries, time both and print."""
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        clients = {size: fill(f"sqlite:///{folder}/{size}.db", size) for size in SIZES}
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(ROUNDS):
            for size, client in clients.items():
                gate_s, promotion_s = time_once(client)
                times.setdefault(("gate", size), []).append(gate_s)
                times.setdefault(("promotion", size), []).append(promotion_s)
    medians = {key: statistics.median(seconds) for key, seconds in times.items()}
    print(markdown_table([tabulate(medians, step) for step in ("gate", "promotion")]))
    figures = {
        f"{step}_adds_s": medians[step, SIZES[1]] - medians[step, SIZES[0]]
        for step in ("gate", "promotion")
    }
    print(json.dumps(figures))


def tabulate(medians: dict[tuple[str, int], float], step: str) -> dict[str, str]:
    """Return the row of a step."""
    return {"step": step} | {f"{size:,} versions": f"{medians[step, size]:.2f} s" for size in SIZES}


def fill(uri: str, size: int) -> MlflowClient:
    """Return the client of a new database with so many versions, the last but one champion."""
    check_tracking(TrackingConfig(uri=uri))
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("model")
    run_id = History(client, "model").run_id
    for number in range(1, size + 1):
        tags = {STUDENT: f"student {number}", VERDICT: "BEATS", "gate": "failed"}
        client.create_model_version("model", "file:///model", run_id, tags=tags)
        event = Event("gate failed", number, "worse", look=number, flow_run=None, commit=None)
        client.set_tag(run_id, event.key, json.dumps(vars(event)))
    client.set_registered_model_alias("model", CHAMPION, str(size - 1))
    client.set_registered_model_alias("model", "challenger", str(size))
    return client


def time_once(client: MlflowClient) -> tuple[float, float]:
    """Register one more version, judge and promote it; return the seconds of both steps."""
    made = client.create_model_version("model", "file:///model")
    client.set_registered_model_alias("model", "challenger", made.version)
    found: list[tuple[Registered, GateReport]] = []
    gate_s = stopwatch(lambda: found.append(judge(client)))
    promotion_s = stopwatch(lambda: promote(client, *found[0]))
    return gate_s, promotion_s


def judge(client: MlflowClient) -> tuple[Registered, GateReport]:
    """Do what the gate does in the registry before and after the models answer."""
    champion = aliases_of(client, "model").get(CHAMPION)
    note_hand_move(client, "model", champion)
    challenger = choose_version(client, "model", None)
    read_gate(client, challenger)
    report = GateReport(challenger.version, champion, "basis", True, "by hand")
    keep_gate(client, challenger, report)
    return challenger, report


def promote(client: MlflowClient, challenger: Registered, report: GateReport) -> None:
    """Do what a promotion does in the registry."""
    finish_promotion(client, "model")
    find_decided(client, "model")
    promote_version(client, challenger, report)


def stopwatch(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
