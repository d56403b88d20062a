"""Stage ``gate``: compares challenger and champion on the same frozen rows in one run."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
from mlflow import MlflowClient
from pydantic import TypeAdapter

from distill_tasks.core.decisions import log_decision
from distill_tasks.core.digests import digest
from distill_tasks.results.review import GateReport, State
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.stages.stage import stage
from registry.aliases import (
    CHAMPION,
    ROLLED_BACK,
    STATE,
    VERDICT,
    Registered,
    aliases_of,
    tags_of,
)
from registry.history import Event, History, Kind, find_hand_move
from registry.judging import Case, compare
from registry.records import keep_record, read_record
from registry.served import ask

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.data.corpus import Split
    from distill_tasks.results.references import CorpusReference

logger = logging.getLogger("potstill")

CODE_VERSION = 3
"""Raised when a change of the code changes the verdict on the same answers."""
JUDGED: dict[State, Kind] = {
    "passed": "gate passed",
    "failed": "gate failed",
    "inconclusive": "gate inconclusive",
}
GATE = "gate"
"""The record of a version's last comparison against the champion; a tag says it in words."""


def judge(
    config: DistillConfig,
    held_out: Split,
    registered: Registered,
    classes: tuple[str, ...],
    dry_run: bool = False,
) -> GateReport:
    """Compare a version with the current champion and write the verdict on the version.

    It may be promoted if its quality BEATS the champion's, or if it is clearly faster and the whole
    interval of its loss stays within ``allowed_drop``. The interval is that of this look at the
    rows: all looks together share one alpha. The first champion must BEAT the same student without
    its teacher, unless ``registry.first`` is ``any``. A version is never promoted if the same
    student is as good without its teacher.
    """
    client = MlflowClient(config.tracking.uri)
    rule = [config.select.metric, config.registry.allowed_drop, config.measure.model_dump()]
    rule += [config.registry.thresholds.model_dump(exclude_none=True)]
    basis = digest(CODE_VERSION, held_out.digest, rule)
    champion = aliases_of(client, registered.model).get(CHAMPION)
    plain = GateReport(registered.version, champion, basis, promote=False, reason="")
    if champion == registered.version:
        ask(registered.uri, held_out.take(np.arange(1)))
        return replace(plain, reason=f"version {champion} is the champion already", reused=True)
    if not dry_run:
        note_hand_move(client, registered.model, champion)
    tags = tags_of(client, registered)
    if tags.get(VERDICT) == Verdict.NO_BEATS:
        reason = "NO BEATS: held-out says that the same student is as good without its teacher"
        refused = replace(plain, reason=reason)
        if not dry_run:
            keep_gate(client, registered, refused)
        return refused
    if ROLLED_BACK in tags:
        again = f"`potstill promote distill.yaml --version {registered.version}`"
        reason = f"it was rolled back; {again} tries it again"
        return replace(plain, reason=reason)
    earlier = read_gate(client, registered)
    if earlier and _still_counts(earlier, champion, basis):
        return earlier
    report = compare(Case(config, client, registered, held_out, classes, dry_run), plain)
    if not dry_run:
        keep_gate(client, registered, report)
    return report


@stage("compare version {registered.version} with the champion", retries=2)
def gate(
    config: DistillConfig, corpus: CorpusReference, registered: Registered, dry_run: bool = False
) -> GateReport:
    """Judge a version against the champion."""
    rows = corpus.open()
    report = judge(config, rows.splits["held_out"], registered, rows.classes, dry_run)
    log_decision(
        "gate",
        "champion_already" if report.compared_to == report.version else report.state,
        model=registered.model,
        version=report.version,
        compared_to=report.compared_to,
        verdict=report.verdict,
        reason=report.reason,
    )
    return report


def note_hand_move(client: MlflowClient, model: str, champion: int | None) -> None:
    """Write into the history, and log, that somebody moved the alias of the champion by hand."""
    history = History(client, model)
    moved = find_hand_move(history.read(), champion)
    if moved is not None:
        logger.warning("champion %s of %s: %s", champion, model, moved.why)
        history.append(moved)


def read_gate(client: MlflowClient, registered: Registered) -> GateReport | None:
    """Return the comparison stored with a version, if there is one."""
    saved = read_record(client, registered, GATE)
    if saved is None:
        return None
    return replace(TypeAdapter(GateReport).validate_python(saved), reused=True)


def _still_counts(earlier: GateReport, champion: int | None, basis: str) -> bool:
    """Return whether an earlier comparison still refuses a version.

    A comparison that allowed the promotion is made again with the present files; so is a refusal
    without a comparison, because its cause may have been fixed.
    """
    refused = earlier.verdict is not None and not earlier.promote
    return refused and (earlier.compared_to, earlier.basis) == (champion, basis)


def keep_gate(client: MlflowClient, registered: Registered, report: GateReport) -> None:
    """Keep the comparison with a version, in its history and in its tags."""
    saved = {key: value for key, value in asdict(report).items() if key != "reused"}
    answer = "may become champion" if report.promote else "refused"
    version = client.get_model_version(registered.model, str(registered.version))
    event = Event(
        JUDGED[report.state],
        registered.version,
        report.reason,
        before=report.compared_to,
        verdict=report.verdict,
        look=report.look.number if report.look else None,
        run=version.run_id or None,
        id=digest(registered.version, report.basis, report.compared_to, report.state),
    )
    History(client, registered.model).append(event)
    keep_record(client, registered, GATE, saved, words=f"{answer}: {report.brief}")
    client.set_model_version_tag(registered.model, str(registered.version), STATE, report.state)
