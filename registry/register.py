"""Stage ``register``: a chosen student becomes a model version, with its card."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from distill_tasks.config import DistillConfig
from distill_tasks.report import Report
from distill_tasks.select import Candidate, Selection
from distill_tasks.stage import stage
from distill_tasks.tracking import Distillation
from registry.aliases import CHALLENGER, CHAMPION, Registered, aliases_of

STUDENT = "potstill.student"
"""Tag with the digest of a version's student, by which a version is found again."""


def register_candidate(
    config: DistillConfig, candidate: Candidate, report: Report, distillation: Distillation
) -> Registered:
    """Register a student as a version and as challenger, or find the version it already is.

    A version that is champion already does not become challenger again.
    """
    client = MlflowClient(config.tracking.uri)
    name = config.registry.model
    _make_model(client, name, config)
    version = find_version(client, name, candidate.digest)
    reused = version is not None
    if version is None:
        version = client.create_model_version(
            name,
            source=f"models:/{report.model_ids[candidate.name]}",
            run_id=report.run_ids[candidate.name],
            tags={
                STUDENT: candidate.digest,
                "distillation": distillation.digest,
                "candidate": candidate.name,
            },
            description=write_card(config, candidate, report, distillation),
        )
    number = int(version.version)
    aliases = aliases_of(client, name)
    if aliases.get(CHAMPION) != number and aliases.get(CHALLENGER) != number:
        client.set_registered_model_alias(name, CHALLENGER, str(number))
    return Registered(name, number, reused)


@stage("register {config.registry.model}", retries=2)
def register(
    config: DistillConfig, selection: Selection, report: Report, distillation: Distillation
) -> Registered:
    """Register the chosen student."""
    assert selection.choice is not None  # the flow ends before, where nothing qualifies
    return register_candidate(config, selection.choice, report, distillation)


def find_version(client: MlflowClient, name: str, student: str) -> ModelVersion | None:
    """Return the version made from a student's digest, if there is one."""
    versions = client.search_model_versions(f"name = '{name}'")
    return next((v for v in versions if v.tags.get(STUDENT) == student), None)


def write_card(
    config: DistillConfig, candidate: Candidate, report: Report, distillation: Distillation
) -> str:
    """Return the model card in markdown: what it is, how good, how fast, where it came from."""
    card = candidate.held_out
    figures = "\n".join(
        f"| {name} | {figure.value:.4f} | {figure.low:.4f} – {figure.high:.4f} | {figure.rows} |"
        for name, figure in card.figures.items()
    )
    latency = candidate.latency
    return f"""# {candidate.name} of {config.name}

A student of {candidate.parameters:,} parameters and {candidate.disk_mb:.1f} MB, distilled from a
teacher of kind `{config.teacher.kind}`. Text in; label, confidence and class probabilities out.

| held-out figure | value | 95 % interval | rows |
| --- | --- | --- | --- |
{figures}

One answer takes {latency.p50_ms:.3g} ms (p50), {latency.p95_ms:.3g} ms (p95) on {latency.device},
{latency.threads} thread(s); {latency.rows_per_s:,.0f} rows/s at batch {latency.batch_rows}.

[Summary run]({distillation.link}) · [all candidates side by side]({report.compare})
"""


def _make_model(client: MlflowClient, name: str, config: DistillConfig) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(
            name, description=f"Students distilled by Potstill from `{config.name}`."
        )
