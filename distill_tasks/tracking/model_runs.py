"""The MLflow runs of a distillation: one for each model, with its LoggedModel, and the summary."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import mlflow

from distill_tasks.core.store import check_whole
from distill_tasks.results.references import TEACHER
from distill_tasks.tracking.figures import (
    describe_datasets,
    log_curve,
    log_datasets,
    log_metrics,
    log_params,
    log_texts,
)
from distill_tasks.tracking.logged_models import find_student, log_student, log_teacher
from distill_tasks.tracking.names import (
    CHOSEN,
    GAIN,
    MOST_WORDS,
    OUTCOME,
    SPEED_UP,
    name_metrics,
)
from distill_tasks.tracking.runs import find_or_start, finish, mark_written
from distill_tasks.tracking.tags import DISTILLATION
from distill_tasks.tracking.views import VERDICT, Qualities, share_views

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from distill_tasks.results.findings import Findings
    from distill_tasks.results.references import StudentReference
    from distill_tasks.results.selection import Candidate
    from distill_tasks.tracking.runs import Distillation

TABLES = "mlflow.loggedArtifacts"
"""MLflow's tag that names the artifacts that its UI shows as tables."""
NOTE = "mlflow.note.content"
"""MLflow's tag with the text that its UI shows on the page of a run."""
FIGURES = "figures.json"
"""The file of a run with every figure that was measured of its model."""


@dataclass(frozen=True)
class ModelRuns:
    """The runs and LoggedModels of a distillation in MLflow."""

    run_ids: dict[str, str]
    """The id of each model's run, by name."""
    model_ids: dict[str, str]
    """The id of the LoggedModel of the teacher and of each served student, by name."""
    compare: str
    """The address of the charts that compare all models."""
    reused: bool
    """Whether an earlier run had written all of them, including the summary."""


@dataclass(frozen=True)
class Report:
    """What was written about a distillation for its reviewers."""

    runs: ModelRuns
    card: str
    """The model card of what is registered; empty if nothing is."""
    reused: bool


def log_models(findings: Findings, distillation: Distillation) -> ModelRuns:
    """Write a run for every model; runs that exist already stay as they are.

    A student that was made again with a different result gets a new run.
    """
    students = {student.name: student for student in findings.students}
    datasets = describe_datasets(findings.rows)
    run_ids: dict[str, str] = {}
    model_ids: dict[str, str] = {}
    finished = distillation.finished
    for name in findings.validation.models:
        student = students.get(name)
        role = name if student is None else _name_role(student)
        run_id, logged = find_or_start(
            distillation.experiment_id,
            distillation.digest,
            role,
            name,
            store=distillation.store,
            parent=distillation.run_id,
        )
        run_ids[name] = run_id
        finished = finished and logged
        tags = {DISTILLATION: distillation.digest, "model": name}
        if name == TEACHER or (student is not None and student.is_teacher):
            model_ids[name] = log_teacher(run_id, name, tags)
        elif student is not None and student.served:
            check_whole(student.folder.parent)
            kept = find_student(run_id, student.folder)
            model_ids[name] = kept or log_student(run_id, name, student.folder, tags)
            logged = logged and kept is not None
        if not logged:
            _log_figures(findings, name, run_id, model_ids.get(name), datasets)
            if student is not None and not student.is_teacher:
                _log_student(findings, student, run_id)
            elif name == TEACHER:
                log_curve(run_id, findings.teacher.curve)
            finish(run_id)
    return ModelRuns(run_ids, model_ids, distillation.compare_link, reused=finished)


def log_summary(
    findings: Findings, distillation: Distillation, folder: Path, table: str, note: str
) -> None:
    """Write the summary run: the files of a folder, one of them shown as a table, and a note."""
    client, run_id, choice = mlflow.MlflowClient(), distillation.run_id, findings.selection.choice
    client.log_artifacts(run_id, str(folder))
    # MLflow's own log_table would append to the table that a killed run left.
    client.set_tag(run_id, TABLES, json.dumps([{"path": table, "type": "table"}]))
    client.set_tag(run_id, NOTE, note)
    if choice is not None:
        client.set_tag(run_id, CHOSEN, choice.name)
        log_metrics(run_id, _summarise(findings, choice))
        _log_verdict(findings, run_id, choice.name)
    qualities = Qualities(findings.metric, name_on_validation(findings))
    share_views(distillation.experiment_id, distillation.digest, qualities)
    if not findings.grid.failed:  # the next run trains failed students again
        mark_written(run_id)


def keep_outcome(distillation: Distillation, outcome: str) -> None:
    """Say on the summary run what became of the registered version."""
    mlflow.MlflowClient().set_tag(distillation.run_id, OUTCOME, outcome[:MOST_WORDS])


def read_outcome(distillation: Distillation) -> str | None:
    """Return what became of the registered version; None where that was never written."""
    return mlflow.MlflowClient().get_run(distillation.run_id).data.tags.get(OUTCOME)


def _summarise(findings: Findings, choice: Candidate) -> dict[str, float]:
    """Return the metrics of the summary run: those of the chosen student over its seeds."""
    values = findings.held_out.candidates[choice.name].values | choice.latency.values
    values |= {
        "model/disk_mb": choice.student.disk_mb,
        "model/parameters": choice.student.parameters,
    }
    faster = findings.speed_up(choice.latency)
    shown = name_metrics(values, findings.config.select.metric)
    return shown | ({SPEED_UP: faster.p95} if faster else {})


def _name_role(student: StudentReference) -> str:
    """Return the role of a student's run: its name and the digest of its content.

    A student stored before content digests existed keeps the role that it had then.
    """
    known_by_recipe = student.digest == student.folder.parent.name
    return f"student/{student.name}" + ("" if known_by_recipe else f"/{student.digest}")


def _log_figures(
    findings: Findings, name: str, run_id: str, model_id: str | None, datasets: Mapping[str, Any]
) -> None:
    """Write the figures of a model: a few as metrics, linked to their rows, and all as a file."""
    log_datasets(run_id, datasets)
    metric, card = findings.config.select.metric, findings.held_out.models.get(name)
    validation, measured = findings.validation.models[name], _list_measured(findings, name)
    shown = name_metrics((card.values if card else {}) | measured, metric)
    log_metrics(run_id, shown, model_id, datasets["held_out"])
    at_validation = {name_on_validation(findings): validation.quality.value}
    log_metrics(run_id, at_validation, model_id, datasets["validation"])
    figures = {
        "held_out": {key: asdict(one) for key, one in card.figures.items()} if card else {},
        "validation": {key: asdict(one) for key, one in validation.figures.items()},
        "measured": measured | {"calibration/temperature": validation.temperature},
    }
    log_texts(run_id, {FIGURES: json.dumps(figures, indent=2)})


def name_on_validation(findings: Findings) -> str:
    """Return the metric that shows the quality by which candidates were chosen."""
    return f"validation {findings.validation_metric}"


def _list_measured(findings: Findings, name: str) -> dict[str, float]:
    """Return the figures of a model's latency, footprint and training, by metric name."""
    latencies, footprints = findings.latencies.by_name, findings.latencies.footprints
    values: dict[str, float] = {}
    if name in latencies:
        values |= latencies[name].values
    if name in footprints:
        values |= footprints[name].values
    for student in findings.students:
        if student.name == name:
            values |= {
                "model/parameters": student.parameters,
                "model/disk_mb": student.disk_mb,
                "train/seconds": student.seconds,
            }
    return values


def _log_student(findings: Findings, student: StudentReference, run_id: str) -> None:
    """Write how a student was trained, and its verdict."""
    settings = findings.grid.settings(student.student)
    about = {
        "seed": student.seed,
        "candidate": student.candidate,
        "variant": student.variant,
        "taught": student.distilled,
    }
    objective = asdict(findings.tuning.objective) if student.distilled else {}
    log_params(run_id, settings.model_dump() | about | objective)
    log_curve(run_id, student.curve)
    card, files = findings.held_out.models.get(student.name), {}
    if card is not None:
        files["per_class.json"] = json.dumps(card.per_class, indent=2)
    if student.served and student.name in findings.proof.panels:
        files["panel.json"] = json.dumps(asdict(findings.proof.panels[student.name]), indent=2)
        judgement = findings.proof.judgements[student.name]
        files["verdict.json"] = json.dumps(asdict(judgement), indent=2)
        if student.name in findings.proof.production:
            check = findings.proof.production[student.name]
            files["production.json"] = json.dumps(asdict(check), indent=2)
        _log_verdict(findings, run_id, student.name)
    log_texts(run_id, files)


def _log_verdict(findings: Findings, run_id: str, name: str) -> None:
    judgement, metrics = findings.proof.judgements[name], {}
    mlflow.MlflowClient().set_tag(run_id, VERDICT, str(judgement.verdict))
    if judgement.difference is not None:
        metrics[GAIN] = judgement.difference.value
    if name in findings.proof.production:
        agreement = findings.proof.production[name].agreement.value
        metrics |= name_metrics({"production/agreement": agreement}, findings.config.select.metric)
    if metrics:
        log_metrics(run_id, metrics)
