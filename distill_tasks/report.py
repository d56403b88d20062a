"""Stage ``report``: what a reviewer reads, on the terminal, in MLflow and as markdown."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_table_artifact

from distill_tasks.config import DistillConfig
from distill_tasks.controls import WORDS_ON_GOLD
from distill_tasks.corpus import Corpus
from distill_tasks.evaluate import TEACHER, Scores
from distill_tasks.intervals import Figure
from distill_tasks.label import LabelsReference, TeacherReference
from distill_tasks.latency import Latency
from distill_tasks.measure import Latencies
from distill_tasks.pictures import Point, Role, write_html, write_png
from distill_tasks.prepare import CorpusReference
from distill_tasks.scorecard import Scorecard
from distill_tasks.select import Candidate, Selection
from distill_tasks.stage import stage
from distill_tasks.tracking import (
    Distillation,
    compare_link,
    find_or_start,
    finish,
    log_curve,
    log_datasets,
    log_figures,
    log_params,
)
from distill_tasks.train import StudentReference

CANDIDATES = "candidates.json"
TABLES = "mlflow.loggedArtifacts"
"""MLflow's tag of the artifacts that its UI shows as tables."""

IN_MARKDOWN = (
    "model",
    "accuracy",
    "interval",
    "retention",
    "agreement",
    "p50 ms",
    "p95 ms",
    "speed-up",
    "MB",
)
"""Columns of the table in `report.md`; candidates.json has them all."""


@dataclass(frozen=True)
class Findings:
    """All that one distillation found: what the report is written from."""

    config: DistillConfig
    corpus: Corpus
    teacher: TeacherReference
    labels: LabelsReference
    students: list[StudentReference]
    scores: Scores
    latencies: Latencies
    selection: Selection


@dataclass(frozen=True)
class Report:
    """The table of candidates, teacher first, and where everything else lies in MLflow."""

    table: list[dict[str, str]]
    warnings: list[str]
    model_ids: dict[str, str]
    """LoggedModel of each student by name."""
    run_ids: dict[str, str]
    """MLflow run of each student by name."""
    markdown: str
    compare: str
    """Link that opens all runs side by side."""
    reused: bool


def tabulate(findings: Findings) -> list[dict[str, str]]:
    """Return the candidates as rows of text, the teacher in the first, the control in the last."""
    rows = [_row(TEACHER, findings, None, "the model to be replaced")]
    best_first = sorted(
        findings.selection.candidates, key=lambda c: (-c.held_out.accuracy.value, c.latency.p95_ms)
    )
    for candidate in best_first:
        outcome = findings.selection.reasons[candidate.name]
        rows.append(_row(candidate.name, findings, candidate, outcome))
    if WORDS_ON_GOLD in findings.scores.cards:
        rows.append(_row(WORDS_ON_GOLD, findings, None, "control: no teacher"))
    return rows


def warn(findings: Findings) -> list[str]:
    """Return what the user should know before trusting the run."""
    warnings = list(findings.corpus.findings)
    control = findings.scores.cards.get(WORDS_ON_GOLD)
    teacher = findings.scores.cards[TEACHER]["held_out"].accuracy
    if control is not None and control["held_out"].accuracy.high >= teacher.low:
        warnings.append(
            f"the teacher ({teacher}) does not clearly beat words on gold "
            f"({control['held_out'].accuracy}): distillation has little to give here"
        )
    return warnings


def write_markdown(findings: Findings, table: list[dict[str, str]], warnings: list[str]) -> str:
    """Return the report as markdown."""
    selection, config = findings.selection, findings.config
    rows = {name: len(split) for name, split in findings.corpus.splits.items()}
    parts = [
        f"# {config.name}",
        _headline(findings),
        "## Candidates",
        "Held-out figures; the choice was made on validation.",
        markdown_table([{key: row[key] for key in IN_MARKDOWN} for row in table]),
        "\n".join(f"- **{row['model']}**: {row['outcome']}" for row in table),
        "## Data",
        ", ".join(f"{name} {count} rows" for name, count in rows.items())
        + f"; {len(findings.corpus.classes)} classes.",
        *(f"- {warning}" for warning in warnings),
        "## Time",
        f"teacher {findings.teacher.seconds:.0f} s, labelling {findings.labels.seconds:.0f} s, "
        + ", ".join(f"{s.name} {s.seconds:.0f} s" for s in findings.students),
    ]
    if selection.choice is not None and selection.choice.held_out.per_class:
        parts += [f"## Classes of {selection.chosen}", _class_table(findings, selection.choice)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: list[dict[str, str]]) -> str:
    """Return rows of text as a markdown table."""
    columns = list(table[0])
    lines = [columns, ["---"] * len(columns), *([row[key] for key in columns] for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@stage("report {config.name}", retries=2)
def report(
    config: DistillConfig,
    distillation: Distillation,
    corpus: CorpusReference,
    teacher: TeacherReference,
    labels: LabelsReference,
    students: list[StudentReference],
    scores: Scores,
    latencies: Latencies,
    selection: Selection,
) -> Report:
    """Write all runs to MLflow, and show the table and a link to them in Prefect."""
    findings = Findings(
        config, corpus.open(), teacher, labels, students, scores, latencies, selection
    )
    written = write_report(findings, distillation)
    create_table_artifact(written.table, key="candidates", description=f"# {config.name}")
    create_link_artifact(distillation.link, "The summary run in MLflow", key="mlflow-run")
    return written


def write_report(findings: Findings, distillation: Distillation) -> Report:
    """Write all runs of a distillation to MLflow; those already written stay as they are."""
    from distill_tasks.logged_models import log_student, log_teacher

    table, warnings = tabulate(findings), warn(findings)
    markdown = write_markdown(findings, table, warnings)
    run_ids: dict[str, str] = {}
    model_ids: dict[str, str] = {}
    for name in findings.scores.cards:
        role = name if name in (TEACHER, WORDS_ON_GOLD) else f"student/{name}"
        run_id, logged = find_or_start(distillation.experiment_id, distillation.digest, role, name)
        run_ids[name] = run_id
        tags = {"distillation": distillation.digest, "model": name}
        student = next((s for s in findings.students if s.name == name), None)
        if student is not None:
            model_ids[name] = log_student(run_id, name, student.folder, tags)
        elif name == TEACHER:
            model_ids[name] = log_teacher(run_id, tags)
        if not logged:
            _log_model_figures(findings, name, run_id, model_ids.get(name), student)
            finish(run_id)
    link = compare_link(distillation.tracking_uri, distillation.experiment_id, [*run_ids.values()])
    if not distillation.finished:
        _log_summary(findings, distillation, table, markdown, link)
    return Report(table, warnings, model_ids, run_ids, markdown, link, reused=distillation.finished)


def _log_model_figures(
    findings: Findings,
    name: str,
    run_id: str,
    model_id: str | None,
    student: StudentReference | None,
) -> None:
    datasets = log_datasets(run_id, findings.corpus)
    values: dict[str, float] = {}
    if name in findings.latencies.by_name:
        values |= findings.latencies.by_name[name].values
    if student is not None:
        values |= {
            "model/parameters": student.parameters,
            "model/disk_mb": student.disk_mb,
            "train/seconds": student.seconds,
        }
    card, validation = (findings.scores.cards[name][s] for s in ("held_out", "validation"))
    log_figures(run_id, card.figures, values, model_id, datasets["held_out"])
    at_validation = {f"validation/{key}": value for key, value in validation.values.items()}
    log_figures(run_id, {}, at_validation, model_id, datasets["validation"])
    if student is not None:
        settings = next(s for s in findings.config.students if s.name == name)
        log_params(run_id, settings.model_dump() | findings.config.loss.model_dump())
        log_curve(run_id, student.curve)
        _log_text(run_id, {"per_class.json": json.dumps(card.per_class, indent=2)})
    elif name == TEACHER:
        log_curve(run_id, findings.teacher.curve)


def _log_summary(
    findings: Findings,
    distillation: Distillation,
    table: list[dict[str, str]],
    markdown: str,
    link: str,
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    run_id = distillation.run_id
    with tempfile.TemporaryDirectory() as scratch:
        points, title = _points(findings), f"{findings.config.name}: accuracy against latency"
        write_html(points, title, Path(scratch) / "front.html")
        write_png(points, title, Path(scratch) / "front.png")
        client.log_artifacts(run_id, scratch)
    columns = {"columns": list(table[0]), "data": [list(row.values()) for row in table]}
    _log_text(run_id, {"report.md": markdown, CANDIDATES: json.dumps(columns, indent=2)})
    # MLflow's own log_table would append to the table that a killed run left.
    client.set_tag(run_id, TABLES, json.dumps([{"path": CANDIDATES, "type": "table"}]))
    client.set_tag(run_id, "mlflow.note.content", f"{markdown}\n[Compare all runs]({link})\n")
    if findings.selection.choice is not None:
        choice = findings.selection.choice
        client.set_tag(run_id, "potstill.chosen", choice.name)
        log_figures(run_id, choice.held_out.figures, choice.latency.values, None, None)
    finish(run_id)


def _log_text(run_id: str, files: dict[str, str]) -> None:
    import mlflow

    for path, text in files.items():
        mlflow.MlflowClient().log_text(run_id, text, path)


def _row(
    name: str, findings: Findings, candidate: Candidate | None, outcome: str
) -> dict[str, str]:
    card = findings.scores.cards[name]["held_out"]
    latency = findings.latencies.by_name.get(name)
    teacher = findings.latencies.by_name.get(TEACHER)
    accuracy = card.accuracy
    speed_up = f"{teacher.p50_ms / latency.p50_ms:.3g}×" if teacher and latency else "–"
    return {
        "model": name,
        "accuracy": f"{accuracy.value:.4f}",
        "interval": f"{accuracy.low:.3f}–{accuracy.high:.3f}",
        "p50 ms": f"{latency.p50_ms:.3g}" if latency else "–",
        "p95 ms": f"{latency.p95_ms:.3g}" if latency else "–",
        "speed-up": speed_up,
        "outcome": outcome,
        "retention": _value(card, "fidelity/retention"),
        "agreement": _value(card, "fidelity/agreement"),
        "macro F1": _value(card, "quality/macro_f1"),
        "ECE": _value(card, "calibration/ece"),
        "rows/s": f"{latency.rows_per_s:,.0f}" if latency else "–",
        "MB": f"{candidate.disk_mb:.1f}" if candidate else "–",
    }


def _value(card: Scorecard, name: str) -> str:
    return f"{card.values[name]:.4f}" if name in card.values else "–"


def _headline(findings: Findings) -> str:
    choice = findings.selection.choice
    if choice is None:
        return f"**{findings.selection.why_none}**"
    teacher: Latency | None = findings.latencies.by_name.get(TEACHER)
    faster = f" and is {teacher.p50_ms / choice.latency.p50_ms:.0f}× faster" if teacher else ""
    kept: Figure | None = choice.held_out.figures.get("fidelity/retention")
    agreed = 100 * choice.held_out.figures["fidelity/agreement"].value
    share = (
        f"keeps {100 * kept.value:.1f} % of the teacher's held-out accuracy"
        if kept
        else f"agrees with the teacher on {agreed:.1f} % of held-out rows"
    )
    return f"**{choice.name}** {share}{faster} (p50, text in, label out)."


def _class_table(findings: Findings, choice: Candidate) -> str:
    teacher = {row["class"]: row for row in findings.scores.cards[TEACHER]["held_out"].per_class}
    rows = [
        {
            "class": row["class"],
            "rows": str(row["rows"]),
            "precision": _share(row["precision"]),
            "recall": _share(row["recall"]),
            "F1": _share(row["f1"]),
            "teacher's F1": _share(teacher[row["class"]]["f1"]),
        }
        for row in choice.held_out.per_class
    ]
    return markdown_table(rows)


def _share(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"


def _points(findings: Findings) -> list[Point]:
    points = []
    for name, latency in findings.latencies.by_name.items():
        accuracy = findings.scores.cards[name]["held_out"].accuracy
        role: Role = (
            "teacher"
            if name == TEACHER
            else "chosen"
            if name == findings.selection.chosen
            else "front"
            if name in findings.selection.front
            else "other"
        )
        reason = findings.selection.reasons.get(name, "the model to be replaced")
        note = "<br>".join(
            (f"<b>{name}</b>", f"accuracy {accuracy}", f"p95 {latency.p95_ms:.3g} ms", reason)
        )
        points.append(Point(name, accuracy, latency.p95_ms, role, note))
    return points
