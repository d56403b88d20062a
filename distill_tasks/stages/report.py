"""Stage ``report``: what a reviewer reads, in MLflow, as a page and on the terminal."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_table_artifact
from pydantic import TypeAdapter

from distill_tasks.core.markup import as_markdown
from distill_tasks.core.store import check_whole
from distill_tasks.reporting.findings import Findings, Row, list_points, tabulate, warn
from distill_tasks.reporting.front import write_png
from distill_tasks.reporting.pages import write_markdown, write_note, write_page
from distill_tasks.results.evaluator import TEACHER
from distill_tasks.results.outcomes import Tuning
from distill_tasks.results.references import StudentReference
from distill_tasks.scoring.scorecard import Scorecard
from distill_tasks.stages.stage import stage
from distill_tasks.tracking.runs import (
    Distillation,
    compare_link,
    describe_datasets,
    find_or_start,
    finish,
    log_curve,
    log_datasets,
    log_figures,
    log_params,
)

CANDIDATES = "candidates.json"
TABLES = "mlflow.loggedArtifacts"
"""MLflow's tag of the artifacts that its UI shows as tables."""


@dataclass(frozen=True)
class Report:
    """The table of candidates, teacher first, and where everything else lies in MLflow."""

    table: list[Row]
    warnings: list[str]
    model_ids: dict[str, str]
    """LoggedModel of each served student by name."""
    run_ids: dict[str, str]
    """MLflow run of each model by name."""
    markdown: str
    compare: str
    """Link that opens all runs side by side."""
    reused: bool


@stage("report {findings.config.name}", retries=2)
def report(findings: Findings, distillation: Distillation) -> Report:
    """Write all runs to MLflow, and show the table and a link to them in Prefect."""
    written = write_report(findings, distillation)
    shown = [{key: as_markdown(cell) for key, cell in row.items()} for row in written.table]
    title = f"# {as_markdown(findings.config.name)}"
    create_table_artifact(shown, key="candidates", description=title)
    create_link_artifact(distillation.link, "The summary run in MLflow", key="mlflow-run")
    return written


def write_report(findings: Findings, distillation: Distillation) -> Report:
    """Write all runs of a distillation to MLflow; those already written stay as they are.

    A student that was made again and came out otherwise gets a run of its own, and the summary is
    written again with it.
    """
    from distill_tasks.tracking.logged_models import find_student, log_student, log_teacher

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
        tags = {"distillation": distillation.digest, "model": name}
        if student is not None and student.served:
            check_whole(student.folder.parent)
            kept = find_student(run_id, student.folder)
            model_ids[name] = kept or log_student(run_id, name, student.folder, tags)
            logged = logged and kept is not None
        elif name == TEACHER:
            model_ids[name] = log_teacher(run_id, tags)
        if not logged:
            model_id = model_ids.get(name)
            _log_model_figures(findings, name, run_id, model_id, student, datasets)
            finish(run_id)
    link = compare_link(distillation.tracking_uri, distillation.experiment_id, [*run_ids.values()])
    table, warnings, markdown = tabulate(findings), warn(findings), write_markdown(findings)
    if not finished:
        _log_summary(findings, distillation, table, markdown, link)
    return Report(table, warnings, model_ids, run_ids, markdown, link, reused=finished)


def _name_role(student: StudentReference) -> str:
    """Return the role of a student's run: its name and, beside that, what it is.

    One that was kept before its bytes were looked at is found in the run that it always had.
    """
    known_by_recipe = student.digest == student.folder.parent.name
    return f"student/{student.name}" + ("" if known_by_recipe else f"/{student.digest}")


def _log_model_figures(
    findings: Findings,
    name: str,
    run_id: str,
    model_id: str | None,
    student: StudentReference | None,
    datasets: Mapping[str, Any],
) -> None:
    log_datasets(run_id, datasets)
    values: dict[str, float] = {}
    if name in findings.latencies.by_name:
        values |= findings.latencies.by_name[name].values
    if name in findings.latencies.footprints:
        values |= findings.latencies.footprints[name].values
    if student is not None:
        values |= {
            "model/parameters": student.parameters,
            "model/disk_mb": student.disk_mb,
            "train/seconds": student.seconds,
        }
    card, validation = findings.held_out.models.get(name), findings.validation.models[name]
    values["calibration/temperature"] = validation.temperature
    figures = card.figures if card else {}
    log_figures(run_id, figures, values, model_id, datasets["held_out"])
    at_validation = {f"validation/{key}": value for key, value in validation.values.items()}
    log_figures(run_id, {}, at_validation, model_id, datasets["validation"])
    if student is not None:
        settings = findings.grid.settings(student.student)
        objective = asdict(findings.tuning.objective) if student.distilled else {}
        about = {
            "seed": student.seed,
            "candidate": student.candidate,
            "variant": student.variant,
            "taught": student.distilled,
        }
        log_params(run_id, settings.model_dump() | about | objective)
        log_curve(run_id, student.curve)
        _log_files(findings, run_id, student, card)
    elif name == TEACHER:
        log_curve(run_id, findings.teacher.curve)


def _log_files(
    findings: Findings, run_id: str, student: StudentReference, card: Scorecard | None
) -> None:
    files = {}
    if card is not None:
        files["per_class.json"] = json.dumps(card.per_class, indent=2)
    if student.served and student.name in findings.proof.panels:
        files["panel.json"] = json.dumps(asdict(findings.proof.panels[student.name]), indent=2)
        judgement = findings.proof.judgements[student.name]
        files["verdict.json"] = json.dumps(asdict(judgement), indent=2)
        _log_verdict(findings, run_id, student.name)
    _log_text(run_id, files)


def _log_verdict(findings: Findings, run_id: str, name: str) -> None:
    import mlflow

    judgement = findings.proof.judgements[name]
    mlflow.MlflowClient().set_tag(run_id, "potstill.verdict", str(judgement.verdict))
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


def _log_summary(
    findings: Findings,
    distillation: Distillation,
    table: list[Row],
    markdown: str,
    link: str,
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    run_id, config = distillation.run_id, findings.config
    with tempfile.TemporaryDirectory() as scratch:
        links = {"This run in MLflow": distillation.link, "All models side by side": link}
        write_page(findings, links, Path(scratch) / "report.html")
        metric = findings.validation_metric
        title = f"{config.name}: {metric} against latency"
        write_png(list_points(findings), metric, title, Path(scratch) / "front.png")
        client.log_artifacts(run_id, scratch)
    columns = {"columns": list(table[0]), "data": [list(row.values()) for row in table]}
    tuning = TypeAdapter(Tuning).dump_json(findings.tuning, indent=2, by_alias=True)
    files = {
        "report.md": markdown,
        CANDIDATES: json.dumps(columns, indent=2),
        "data_report.json": json.dumps(asdict(findings.corpus.report), indent=2),
        "learning_curve.json": json.dumps(asdict(findings.curve), indent=2),
        "blend.json": tuning.decode(),
    }
    _log_text(run_id, files)
    # MLflow's own log_table would append to the table that a killed run left.
    client.set_tag(run_id, TABLES, json.dumps([{"path": CANDIDATES, "type": "table"}]))
    note = f"{write_note(findings)}\n[Compare all runs]({link})\n"
    client.set_tag(run_id, "mlflow.note.content", note)
    choice = findings.selection.choice
    if choice is not None:
        client.set_tag(run_id, "potstill.chosen", choice.name)
        figures = findings.held_out.candidates[choice.name].figures
        log_figures(run_id, figures, choice.latency.values, None, None)
        _log_verdict(findings, run_id, choice.name)
    if not findings.grid.failed:  # what failed is tried again by the next run
        finish(run_id)


def _log_text(run_id: str, files: dict[str, str]) -> None:
    import mlflow

    for path, text in files.items():
        mlflow.MlflowClient().log_text(run_id, text, path)
