"""Stage ``report``: what a reviewer reads, in MLflow, as a page and on the terminal."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import create_link_artifact, create_table_artifact
from pydantic import TypeAdapter

from distill_tasks.core.markup import as_markdown
from distill_tasks.reporting.front import list_points, write_png
from distill_tasks.reporting.model_card import write_card
from distill_tasks.reporting.pages import write_markdown, write_note, write_page
from distill_tasks.reporting.review import write_review
from distill_tasks.reporting.tables import tabulate_models
from distill_tasks.results.outcomes import Tuning
from distill_tasks.stages.stage import stage
from distill_tasks.tracking.model_runs import Report, log_models, log_summary

if TYPE_CHECKING:
    from distill_tasks.results.findings import Findings
    from distill_tasks.tracking.runs import Distillation

CANDIDATES = "candidates.json"


@stage("report {findings.config.name}", retries=2)
def report(findings: Findings, distillation: Distillation) -> Report:
    """Write all runs to MLflow, and show the table and a link to them in Prefect."""
    written = write_report(findings, distillation)
    table = tabulate_models(findings)
    shown = [{title: as_markdown(cell) for title, cell in cells.items()} for cells in table]
    title = f"# {as_markdown(findings.config.name)}"
    create_table_artifact(shown, key="candidates", description=title)
    create_link_artifact(distillation.link, "The summary run in MLflow", key="mlflow-run")
    return written


def write_report(findings: Findings, distillation: Distillation) -> Report:
    """Write all runs of a distillation to MLflow; those already written stay as they are.

    The summary is written again with each run that is new.
    """
    runs, choice = log_models(findings, distillation), findings.selection.choice
    if not runs.reused:
        note = f"{write_note(findings)}\n[Compare all runs]({runs.compare})\n"
        with tempfile.TemporaryDirectory() as scratch:
            write_files(findings, distillation.link, runs.compare, Path(scratch))
            log_summary(findings, distillation, Path(scratch), table=CANDIDATES, note=note)
    card = write_card(findings, choice, distillation.link, runs.compare) if choice else ""
    return Report(runs, card, reused=runs.reused)


def write_files(findings: Findings, summary: str, compare: str, folder: Path) -> None:
    """Write what the summary run holds for people and programs; the page has links to MLflow."""
    metric = findings.validation_metric
    links = {"This run in MLflow": summary, "All models side by side": compare}
    write_page(findings, links, folder / "report.html")
    title = f"{findings.config.name}: {metric} against latency"
    write_png(list_points(findings), metric, title, folder / "front.png")
    write_review(findings, folder)
    table = tabulate_models(findings)
    columns = {"columns": list(table[0]), "data": [list(cells.values()) for cells in table]}
    tuning = TypeAdapter(Tuning).dump_json(findings.tuning, indent=2, by_alias=True)
    files = {
        "report.md": write_markdown(findings),
        CANDIDATES: json.dumps(columns, indent=2),
        "data_report.json": json.dumps(asdict(findings.corpus.report), indent=2),
        "learning_curve.json": json.dumps(asdict(findings.curve), indent=2),
        "blend.json": tuning.decode(),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
