"""Stage ``register``: a chosen student becomes a model version, with its card."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from distill_tasks.config import DistillConfig
from distill_tasks.findings import Findings, say_footprint, say_verdict
from distill_tasks.report import Report
from distill_tasks.select import Candidate
from distill_tasks.stage import stage
from distill_tasks.tracking import Distillation
from registry.aliases import CHALLENGER, CHAMPION, VERDICT, Registered, aliases_of

STUDENT = "potstill.student"
"""Tag with the digest of a version's student, by which a version is found again."""


def register_candidate(
    findings: Findings, candidate: Candidate, report: Report, distillation: Distillation
) -> Registered:
    """Register a student as a version and as challenger, or find the version it already is.

    A version that is champion already does not become challenger again.
    """
    config = findings.config
    client = MlflowClient(config.tracking.uri)
    name, student = config.registry.model, candidate.student
    _make_model(client, name, config)
    version = find_version(client, name, student.digest)
    reused = version is not None
    if version is None:
        version = client.create_model_version(
            name,
            source=f"models:/{report.model_ids[candidate.name]}",
            run_id=report.run_ids[candidate.name],
            tags={
                STUDENT: student.digest,
                "distillation": distillation.digest,
                "candidate": candidate.name,
                "seed": str(student.seed),
            },
            description=write_card(findings, candidate, report, distillation),
        )
    number = int(version.version)
    judgement = findings.proof.judgements[candidate.name]
    client.set_model_version_tag(name, str(number), VERDICT, str(judgement.verdict))
    aliases = aliases_of(client, name)
    if aliases.get(CHAMPION) != number and aliases.get(CHALLENGER) != number:
        client.set_registered_model_alias(name, CHALLENGER, str(number))
    return Registered(name, number, reused)


@stage("register {findings.config.registry.model}", retries=2)
def register(findings: Findings, report: Report, distillation: Distillation) -> Registered:
    """Register the chosen student."""
    choice = findings.selection.choice
    assert choice is not None  # the flow ends before, where nothing qualifies
    return register_candidate(findings, choice, report, distillation)


def find_version(client: MlflowClient, name: str, student: str) -> ModelVersion | None:
    """Return the version made from a student's digest, if there is one."""
    versions = client.search_model_versions(f"name = '{name}'")
    return next((v for v in versions if v.tags.get(STUDENT) == student), None)


def write_card(
    findings: Findings, candidate: Candidate, report: Report, distillation: Distillation
) -> str:
    """Return the model card in markdown: what it is, how good, how fast, where it came from."""
    config, student = findings.config, candidate.student
    card = findings.held_out.models[student.name]
    figures = "\n".join(
        f"| {name} | {figure.value:.4f} | {figure.low:.4f} – {figure.high:.4f} | {figure.rows} |"
        for name, figure in card.figures.items()
    )
    latency, takes = candidate.latency, say_footprint(candidate.footprint)
    verdict = say_verdict(findings.proof.judgements[candidate.name])
    variant = f"\n\nRuns as {student.variant}: {candidate.parity}." if candidate.parity else ""
    return f"""# {candidate.name} of {config.name}

A student of {student.parameters:,} parameters and {student.disk_mb:.1f} MB, distilled from a
teacher of kind `{config.teacher.kind}` with seed {student.seed}. Text in; label, confidence, class
probabilities and whether to abstain out.

**Did the teacher help?** {verdict}

| held-out figure of this seed | value | 95 % interval | rows |
| --- | --- | --- | --- |
{figures}

One answer takes {latency.p50_ms:.3g} ms (p50), {latency.p95_ms:.3g} ms (p95) on {latency.device},
{latency.threads} thread(s); {latency.throughput:,.0f} rows/s. Without mlflow: {takes}.{variant}

[Summary run]({distillation.link}) · [all candidates side by side]({report.compare})
"""


def _make_model(client: MlflowClient, name: str, config: DistillConfig) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(
            name, description=f"Students distilled by Potstill from `{config.name}`."
        )
