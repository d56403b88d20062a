"""Stage ``report``: what a reviewer reads, in MLflow, as a page and on the terminal."""

from __future__ import annotations

import base64
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from pydantic import TypeAdapter

from distill_tasks.core.markup import as_markdown
from distill_tasks.core.terminal import Cells
from distill_tasks.reporting.audit import write_answers
from distill_tasks.reporting.front import list_points, write_png
from distill_tasks.reporting.model_card import CardLinks, write_card
from distill_tasks.reporting.pages import write_markdown, write_note, write_page
from distill_tasks.reporting.relabelling import write_review
from distill_tasks.reporting.review import say_review, tabulate_gate
from distill_tasks.reporting.tables import NOTHING, tabulate_models
from distill_tasks.results.outcomes import Tuning
from distill_tasks.stages.flow_run import link_flow_run
from distill_tasks.stages.stage import stage
from distill_tasks.tracking.links import artifact_path, version_link
from distill_tasks.tracking.model_runs import (
    Report,
    keep_outcome,
    log_models,
    log_summary,
    read_outcome,
)
from distill_tasks.tracking.names import MOST_WORDS

if TYPE_CHECKING:
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.review import Review
    from distill_tasks.tracking.runs import Distillation

CANDIDATES = "candidates.json"
FRONT, ON_CARD = "front.png", "front_small.png"
"""The picture, and as the card shows it: MLflow's pages do not shrink pictures."""
FEWER_DOTS = 80
"""Dots per inch of the small picture."""


@stage("write the report to MLflow", retries=2)
def report(findings: Findings, distillation: Distillation) -> Report:
    """Write all runs to MLflow, and show the table, the front and links to them in Prefect."""
    written = write_report(findings, distillation)
    title = f"# {as_markdown(findings.config.name)}"
    _show_table(tabulate_models(findings), key="candidates", description=title)
    _show_front(findings)
    _show_link("mlflow-run", "This run in MLflow", distillation.link)
    _show_link("mlflow-models", "All models side by side in MLflow", distillation.compare_link)
    return written


@stage("add the outcome to the report", retries=2)
def conclude(
    findings: Findings, distillation: Distillation, written: Report, review: Review
) -> Report:
    """Add what the gate said to the report in MLflow, and return it with the card that says so."""
    if review.gate is not None:
        model, version = review.promotion.model, review.gate.version
        link = version_link(distillation.ui, model, version)
        _show_link("mlflow-version", f"Version {version} of {model} in MLflow", link)
    return write_outcome(findings, distillation, written, review)


@stage("show the gate's answer")
def show_gate(review: Review) -> None:
    """Show what the gate compared as a table in Prefect."""
    if review.gate is not None:
        _show_table(tabulate_gate(review.gate), key="gate", description=say_review(review))


def _show_link(key: str, text: str, link: str) -> None:
    """Show a link in Prefect, whose list of artifacts shows the description alone."""
    create_link_artifact(link, text, key=key, description=as_markdown(text))


def _show_front(findings: Findings) -> None:
    """Show the front in Prefect, the picture itself and not where it lies.

    MLflow's server would ask whoever looks at it for a password, and a database serves no pictures.
    It is markdown, since the page of an image artifact prints the whole address below the image.
    """
    with tempfile.TemporaryDirectory() as scratch:
        png = _write_front(findings, Path(scratch) / ON_CARD, dots_per_inch=FEWER_DOTS).read_bytes()
    picture = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    about = as_markdown(_name_front(findings))
    create_markdown_artifact(f"![The front]({picture})", key="front", description=about)


def _name_front(findings: Findings) -> str:
    return f"{findings.config.name}: {findings.validation_metric} against latency"


def _write_front(findings: Findings, path: Path, dots_per_inch: int = 150) -> Path:
    points, metric = list_points(findings), findings.validation_metric
    write_png(points, metric, _name_front(findings), path, dots_per_inch=dots_per_inch)
    return path


def _show_table(table: list[Cells], key: str, description: str) -> None:
    """Show a table in Prefect, without the columns that say nothing."""
    titles = [title for title in table[0] if any(cells[title] != NOTHING for cells in table)]
    shown = [{title: as_markdown(cells[title]) for title in titles} for cells in table]
    create_table_artifact(shown, key=key, description=description)


def write_report(findings: Findings, distillation: Distillation) -> Report:
    """Write all runs of a distillation to MLflow; those already written stay as they are.

    The summary is written again with each run that is new.
    """
    runs = log_models(findings, distillation)
    if not runs.reused:
        _write_summary(findings, distillation)
    kept = findings.to_register
    card = write_card(findings, kept, _link_card(distillation)) if kept else ""
    return Report(runs, card, reused=runs.reused)


def write_outcome(
    findings: Findings, distillation: Distillation, written: Report, review: Review
) -> Report:
    """Write the summary and the card again with what the gate said, unless it is there already.

    An earlier answer stays where the gate had nothing new to compare.
    """
    candidate, told = findings.to_register, read_outcome(distillation)
    assert candidate is not None  # or there were no version to review
    gate = review.gate
    same = gate is not None and gate.look is None and told == str(review)[:MOST_WORDS]
    nothing_new = gate is None or gate.reused or same
    if told is not None and nothing_new:
        return replace(written, card="", reused=True)
    _write_summary(findings, distillation, review)
    card = write_card(findings, candidate, _link_card(distillation), review)
    keep_outcome(distillation, str(review))
    return replace(written, card=card, reused=False)


def _write_summary(
    findings: Findings, distillation: Distillation, review: Review | None = None
) -> None:
    links = {"Compare all models": distillation.compare_link}
    if (page := link_flow_run()) is not None:
        links["Flow run in Prefect"] = page
    listed = " · ".join(f"[{text}]({link})" for text, link in links.items())
    note = f"{write_note(findings, review)}\n{listed}\n"
    with tempfile.TemporaryDirectory() as scratch:
        write_files(findings, distillation, Path(scratch), review)
        if review is None:  # the pictures stay as they are, whatever the gate says
            _write_front(findings, Path(scratch) / FRONT)
            _write_front(findings, Path(scratch) / ON_CARD, dots_per_inch=FEWER_DOTS)
        log_summary(findings, distillation, Path(scratch), table=CANDIDATES, note=note)


def _link_card(distillation: Distillation) -> CardLinks:
    front = artifact_path(distillation.run_id, ON_CARD)
    return CardLinks(distillation.link, distillation.compare_link, front)


def write_files(
    findings: Findings, distillation: Distillation, folder: Path, review: Review | None = None
) -> None:
    """Write the texts of the summary run for people and programs; the page links to MLflow."""
    links = {
        "This run in MLflow": distillation.link,
        "All models side by side": distillation.compare_link,
    }
    write_page(findings, links, folder / "report.html", review)
    write_review(findings, folder)
    write_answers(findings.suspicious_answers, folder)
    table = tabulate_models(findings)
    columns = {"columns": list(table[0]), "data": [list(cells.values()) for cells in table]}
    tuning = TypeAdapter(Tuning).dump_json(findings.tuning, indent=2, by_alias=True)
    files = {
        "report.md": write_markdown(findings, review),
        CANDIDATES: json.dumps(columns, indent=2),
        "data_report.json": json.dumps(asdict(findings.corpus.report), indent=2),
        "audit.json": json.dumps(asdict(findings.audit), indent=2),
        "learning_curve.json": json.dumps(asdict(findings.curve), indent=2),
        "blend.json": tuning.decode(),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
