"""The MLflow runs of a distillation: one for each model, with its LoggedModel, and the summary."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import mlflow

from distill_tasks.core.store import check_whole
from distill_tasks.results.outcomes import TEACHER
from distill_tasks.tracking.figures import (
    describe_datasets,
    log_curve,
    log_datasets,
    log_figures,
    log_params,
    log_texts,
)
from distill_tasks.tracking.links import compare_link
from distill_tasks.tracking.logged_models import find_student, log_student, log_teacher
from distill_tasks.tracking.runs import DISTILLATION, find_or_start, finish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from distill_tasks.results.findings import Findings
    from distill_tasks.results.references import StudentReference
    from distill_tasks.tracking.runs import Distillation

TABLES = "mlflow.loggedArtifacts"
"""MLflow's tag that names the artifacts that its UI shows as tables."""
NOTE = "mlflow.note.content"
"""MLflow's tag with the text that its UI shows on the page of a run."""
CHOSEN = "potstill.chosen"
"""The tag of a summary run that names the chosen student."""
VERDICT = "potstill.verdict"
"""The tag of a run with the verdict on its student."""


@dataclass(frozen=True)
class ModelRuns:
    """The runs and LoggedModels of a distillation in MLflow."""

    run_ids: dict[str, str]
    """The id of each model's run, by name."""
    model_ids: dict[str, str]
    """The id of the LoggedModel of the teacher and of each served student, by name."""
    compare: str
    """The address that compares all runs."""
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
        run_id, logged = find_or_start(distillation.experiment_id, distillation.digest, role, name)
        run_ids[name] = run_id
        finished = finished and logged
        tags = {DISTILLATION: distillation.digest, "model": name}
        if student is not None and student.served:
            check_whole(student.folder.parent)
            kept = find_student(run_id, student.folder)
            model_ids[name] = kept or log_student(run_id, name, student.folder, tags)
            logged = logged and kept is not None
        elif name == TEACHER:
            model_ids[name] = log_teacher(run_id, tags)
        if not logged:
            _log_figures(findings, name, run_id, model_ids.get(name), datasets)
            if student is not None:
                _log_student(findings, student, run_id)
            elif name == TEACHER:
                log_curve(run_id, findings.teacher.curve)
            finish(run_id)
    link = compare_link(distillation.tracking_uri, distillation.experiment_id, [*run_ids.values()])
    return ModelRuns(run_ids, model_ids, link, reused=finished)


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
        figures = findings.held_out.candidates[choice.name].figures
        log_figures(run_id, figures, choice.latency.values, None, None)
        _log_verdict(findings, run_id, choice.name)
    if not findings.grid.failed:  # the next run trains failed students again
        finish(run_id)


def _name_role(student: StudentReference) -> str:
    """Return the role of a student's run: its name and the digest of its content.

    A student stored before content digests existed keeps the role that it had then.
    """
    known_by_recipe = student.digest == student.folder.parent.name
    return f"student/{student.name}" + ("" if known_by_recipe else f"/{student.digest}")


def _log_figures(
    findings: Findings, name: str, run_id: str, model_id: str | None, datasets: Mapping[str, Any]
) -> None:
    """Write the figures of a model, each linked to the rows it was measured on."""
    log_datasets(run_id, datasets)
    card, validation = findings.held_out.models.get(name), findings.validation.models[name]
    values = _list_measured(findings, name) | {"calibration/temperature": validation.temperature}
    log_figures(run_id, card.figures if card else {}, values, model_id, datasets["held_out"])
    at_validation = {f"validation/{key}": value for key, value in validation.values.items()}
    log_figures(run_id, {}, at_validation, model_id, datasets["validation"])


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
        _log_verdict(findings, run_id, student.name)
    log_texts(run_id, files)


def _log_verdict(findings: Findings, run_id: str, name: str) -> None:
    judgement = findings.proof.judgements[name]
    mlflow.MlflowClient().set_tag(run_id, VERDICT, str(judgement.verdict))
    comparison, values, figures = judgement.comparison, {}, {}
    if comparison is not None:
        figures["verdict/difference"] = comparison.difference
        values["verdict/p_value"] = comparison.p_value
    if judgement.distillation_ratio is not None:
        figures["verdict/distillation_ratio"] = judgement.distillation_ratio
    if name in findings.proof.production:
        check = findings.proof.production[name]
        figures["production/agreement"] = check.agreement
        figures["production/out_of_distribution"] = check.out_of_distribution
    log_figures(run_id, figures, values, None, None)
