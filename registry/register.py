"""Stage ``register``: registers the chosen student as a model version, with its card."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from distill_tasks.stages.stage import stage
from distill_tasks.tracking.names import LICENCE
from registry.aliases import (
    CHALLENGER,
    CHAMPION,
    CONTROL,
    STUDENT,
    VERDICT,
    Registered,
    aliases_of,
    cross_out,
    finish_move,
)
from registry.history import Event, History
from registry.judging import MEASURED, Measured
from registry.lease import lease
from registry.records import keep_record
from registry.served import UnopenedError, open_served

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.selection import Candidate
    from distill_tasks.tracking.model_runs import Report
    from distill_tasks.tracking.runs import Distillation

logger = logging.getLogger("potstill")


def register_candidate(
    findings: Findings, candidate: Candidate, report: Report, distillation: Distillation
) -> Registered:
    """Register a student as a version and challenger, unless it has a version already.

    A version that is champion does not become challenger again. If the version can no longer be
    opened, a new version of the same student is made. ``report`` holds the student's card.
    """
    config = findings.config
    client = MlflowClient(config.tracking.uri)
    _make_model(client, config)
    with lease(client, config.registry.model):
        move = finish_move(client, config.registry.model)
    cross_out(client, config.registry.model, move)
    registered = find_version(client, config.registry.model, candidate.student.digest)
    if registered is None:
        registered = _make_version(client, findings, candidate, report, distillation)
    _note_registered(client, registered, candidate, distillation)
    _describe_measured(client, findings, candidate, registered)
    aliases = aliases_of(client, registered.model)
    if registered.version not in (aliases.get(CHAMPION), aliases.get(CHALLENGER)):
        number = str(registered.version)
        client.set_registered_model_alias(registered.model, CHALLENGER, number)
    return registered


@stage("register the student as {findings.config.registry.model}", retries=2)
def register(findings: Findings, report: Report, distillation: Distillation) -> Registered:
    """Register the chosen student, or the cheap control where the configuration asks for it."""
    candidate = findings.to_register
    assert candidate is not None  # the flow ends before, where nothing qualifies
    return register_candidate(findings, candidate, report, distillation)


def find_version(client: MlflowClient, name: str, student: str) -> Registered | None:
    """Return the newest version made from a student's digest, if there is one that opens."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{STUDENT}` = '{student}'")
    if not found:
        return None
    newest = Registered(name, max(int(version.version) for version in found), reused=True)
    try:
        open_served(newest.uri, compare_packages=False)
    except UnopenedError as error:
        logger.warning("%s It is registered again.", error)
        return None
    return newest


def _make_model(client: MlflowClient, config: DistillConfig) -> None:
    name = config.registry.model
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(
            name, description=f"Students distilled by Potstill from `{config.name}`."
        )


def _make_version(
    client: MlflowClient,
    findings: Findings,
    candidate: Candidate,
    report: Report,
    distillation: Distillation,
) -> Registered:
    name, model_id = findings.config.registry.model, report.runs.model_ids[candidate.name]
    terms = findings.config.teacher.say_licence()
    version = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=distillation.run_id,  # whose page then links the version
        model_id=model_id,  # a server takes no model as the source without it
        tags={
            STUDENT: candidate.student.digest,
            "distillation": distillation.digest,
            "candidate": candidate.name,
            "seed": str(candidate.student.seed),
            **({LICENCE: terms} if terms else {}),
        },
        description=report.card,
    )
    return Registered(name, int(version.version), reused=False)


def _note_registered(
    client: MlflowClient, registered: Registered, candidate: Candidate, distillation: Distillation
) -> None:
    event = Event(
        "registered",
        registered.version,
        f"{candidate.name}, seed {candidate.student.seed}",
        run=distillation.run_id,
        id=f"registered-{registered.version}",
    )
    History(client, registered.model).append(event)


def _describe_measured(
    client: MlflowClient, findings: Findings, candidate: Candidate, registered: Registered
) -> None:
    """Record a student's measured quality with its version, which the gate checks."""
    judgement = findings.proof.judgements.get(candidate.name)
    verdict = judgement.verdict if judgement else CONTROL
    card = findings.held_out.models[candidate.name]
    rows = findings.rows.splits["held_out"]
    measured = Measured(rows.digest, card.metric, card.quality.value)
    words = f"{findings.metric} {card.quality} on {len(rows):,} held-out rows"
    keep_record(client, registered, MEASURED, asdict(measured), words)
    client.set_model_version_tag(registered.model, str(registered.version), VERDICT, str(verdict))


@stage("update the card of version {registered.version}", retries=2)
def describe(config: DistillConfig, registered: Registered, card: str) -> None:
    """Give a version its card; an empty one leaves the card that it has."""
    if card:
        client = MlflowClient(config.tracking.uri)
        client.update_model_version(registered.model, str(registered.version), card)
