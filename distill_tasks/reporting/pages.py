"""The report as pages: markdown for MLflow's notes, and one interactive HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_tasks.core.markup import as_markdown
from distill_tasks.reporting.audit import say_audit
from distill_tasks.reporting.cards import fill_cards
from distill_tasks.reporting.charts import (
    draw_confusion,
    draw_learning_curve,
    draw_production,
    draw_reliability,
)
from distill_tasks.reporting.front import draw_front, list_points
from distill_tasks.reporting.notes import gather_notes, group_notes
from distill_tasks.reporting.review import say_review, tabulate_gate
from distill_tasks.reporting.rows import list_models
from distill_tasks.reporting.sentences import (
    ERRORS,
    explain_report_columns,
    headline,
    say_classes,
    say_cost,
    say_errors,
    say_example,
    say_front,
    say_halving,
    say_objective,
    say_times,
    say_verdict,
)
from distill_tasks.reporting.tables import (
    markdown_table,
    name_against_variant,
    name_quality_columns,
    show_model,
    tabulate_calibration,
    tabulate_classes,
    tabulate_objectives,
    tabulate_splits,
    tabulate_variants,
)
from distill_tasks.reporting.templates import fill_template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distill_tasks.results.findings import Findings
    from distill_tasks.results.review import Review

IN_MARKDOWN = (
    "seeds",
    "verdict",
    "against control",
    "retention",
    "agreement",
    "p50 ms",
    "p95 ms",
    "speed-up p50",
    "speed-up p95",
    "MB",
)
"""Columns of the table beside the model and its quality; candidates.json has them all."""

ON_PAGE = (
    *("verdict", "against control", "retention"),
    *("p50 ms", "p95 ms", "speed-up p50", "speed-up p95", "MB"),
)
"""Columns of the page's first table, as many as a screen is wide; the second one has the others."""


def write_note(findings: Findings, review: Review | None = None) -> str:
    """Return the summary in markdown: what MLflow shows on the run's page.

    ``review`` is what the gate said of the registered version, once it has.
    """
    rows, choice = list_models(findings), findings.selection.choice
    columns = ("model", *name_quality_columns(findings), *_add_variant(findings, IN_MARKDOWN))
    shown = [show_model(row, findings) for row in rows]
    parts = [
        f"# {as_markdown(findings.config.name)}",
        f"**{as_markdown(headline(findings))}**",
        *([as_markdown(say_verdict(findings.judgement))] if findings.judgement else []),
        _bullets(say_classes(findings, choice)) if choice else "",
        *_write_review(review),
        "## Candidates",
        as_markdown(explain_report_columns(findings)),
        markdown_table([{title: cells[title] for title in columns} for cells in shown]),
        _named_bullets((f"{row.name}:", row.outcome) for row in rows),
        as_markdown(say_front(findings)),
        as_markdown(say_cost(findings)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_markdown(findings: Findings, review: Review | None = None) -> str:
    """Return the whole report in markdown."""
    variants = tabulate_variants(findings)
    parts = [
        write_note(findings, review).strip(),
        *_write_notes(findings),
        "## Verdicts",
        _named_bullets((n, say_verdict(j)) for n, j in findings.proof.judgements.items()),
        *(["## Variants", markdown_table(variants)] if variants else []),
        *_about_choice(findings),
        "## The teacher before training",
        _bullets(say_audit(findings.audit)),
        "## Data",
        markdown_table(tabulate_splits(findings)),
        "## Training",
        as_markdown(say_halving(findings)),
        as_markdown(say_objective(findings)),
        *([markdown_table(tabulate_objectives(findings))] if findings.tuning.compared else []),
        as_markdown(findings.curve.meaning),
        as_markdown(say_times(findings)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_page(
    findings: Findings, links: dict[str, str], path: Path, review: Review | None = None
) -> None:
    """Write the report as one HTML file that opens offline."""
    filled = _fill(findings, links) | _fill_review(review)
    path.write_text(fill_template("report.html.jinja", filled), encoding="utf-8")


def _write_review(review: Review | None) -> list[str]:
    """Return the markdown section on the gate; empty before it has said anything."""
    if review is None:
        return []
    table = [markdown_table(tabulate_gate(review.gate))] if review.gate else []
    return ["## Champion", as_markdown(say_review(review)), *table]


def _fill_review(review: Review | None) -> dict[str, Any]:
    """Return the template's values about the gate."""
    gate = review.gate if review else None
    return {
        "review": say_review(review) if review else "",
        "gate": tabulate_gate(gate) if gate and gate.challenger else [],
    }


def _write_notes(findings: Findings) -> list[str]:
    """Return the markdown section of all notes, grouped by rank; empty where there are none."""
    parts = ["## Notes"]
    for rank, texts in group_notes(gather_notes(findings)).items():
        parts += [f"### {rank.capitalize()}", _bullets(texts)]
    return parts if len(parts) > 1 else []


def _about_choice(findings: Findings) -> list[str]:
    """Return the markdown sections on the chosen student."""
    choice, panel = findings.selection.choice, findings.panel
    if choice is None or panel is None:
        return []
    parts = [f"## What {as_markdown(choice.name)} gets wrong", _bullets(say_errors(panel))]
    if panel.has_gold:
        parts += [markdown_table(tabulate_classes(findings, choice))]
        parts += ["## Calibration", markdown_table(tabulate_calibration(findings, choice))]
    for kind, group in panel.errors.items():
        if group.examples:
            parts.append(f"### {ERRORS[kind]}")
            parts.append(_bullets(map(say_example, group.examples)))
    return parts


def _fill(findings: Findings, links: dict[str, str]) -> dict[str, Any]:
    """Return the values of the template."""
    rows, chosen = list_models(findings), findings.selection.chosen
    cells = [show_model(row, findings) for row in rows]
    quality, on_page = name_quality_columns(findings), _add_variant(findings, ON_PAGE)
    known = {*quality, *on_page, "outcome"}
    return {
        "name": findings.config.name,
        "metric": findings.metric,
        "headline": headline(findings),
        "links": links,
        "cards": fill_cards(findings),
        "columns": explain_report_columns(findings),
        "table": [{key: one[key] for key in ("model", *quality, *on_page)} for one in cells],
        "further": [{k: v for k, v in one.items() if k not in known} for one in cells],
        "outcomes": {row.name: row.outcome for row in rows},
        "front": say_front(findings),
        "variants": tabulate_variants(findings),
        "cost": say_cost(findings),
        "verdicts": {n: say_verdict(j) for n, j in findings.proof.judgements.items()},
        "notes": group_notes(gather_notes(findings)),
        "chosen": chosen,
        "audit": say_audit(findings.audit),
        "splits": tabulate_splits(findings),
        "halving": say_halving(findings),
        "blend": say_objective(findings),
        "blends": tabulate_objectives(findings),
        "curve": findings.curve.meaning,
        "production": findings.proof.production.get(chosen or ""),
        "charts": _embed(_draw_charts(findings)),
        **_fill_choice(findings),
    }


def _fill_choice(findings: Findings) -> dict[str, Any]:
    """Return the template's values about the chosen student."""
    choice, panel = findings.selection.choice, findings.panel
    has_gold = choice is not None and panel is not None and panel.has_gold
    return {
        "errors": say_errors(panel) if panel else [],
        "error_groups": panel.errors if panel else {},
        "error_titles": ERRORS,
        "classes": tabulate_classes(findings, choice) if choice and has_gold else [],
        "slices": panel.slices if panel else [],
        "calibration": tabulate_calibration(findings, choice) if choice and has_gold else [],
    }


def _draw_charts(findings: Findings) -> dict[str, Any]:
    """Return every chart that there is something to draw for."""
    panel, chosen = findings.panel, findings.selection.chosen
    charts = {"front": draw_front(list_points(findings), findings.validation_metric)}
    if panel is not None and panel.has_gold:
        charts["reliability"] = draw_reliability(panel)
    if panel is not None:
        several = findings.config.problem == "multi_label"
        charts["confusion"] = draw_confusion(panel, findings.rows.classes, several)
    if findings.curve.points:
        charts["learning"] = draw_learning_curve(findings.curve, findings.metric)
    if chosen in findings.proof.production:
        charts["production"] = draw_production(findings.proof.production[chosen])
    return charts


def _embed(charts: dict[str, Any]) -> dict[str, str]:
    """Return the charts as HTML; the first one carries plotly.js for all."""
    from markupsafe import Markup

    return {
        name: Markup(  # noqa: S704  # plotly escapes it as JSON, `as_label` its labels
            figure.to_html(full_html=False, include_plotlyjs=number == 0, default_width="100%")
        )
        for number, (name, figure) in enumerate(charts.items())
    }


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {as_markdown(text)}" for text in texts)


def _named_bullets(named: Iterable[tuple[str, str]]) -> str:
    """Return texts as a markdown list, each after its name in bold."""
    return "\n".join(f"- **{as_markdown(name)}** {as_markdown(text)}" for name, text in named)


def _add_variant(findings: Findings, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return columns with the speed-up over the teacher's best variant beside that over it."""
    column, place = name_against_variant(findings), columns.index("speed-up p95") + 1
    return (*columns[:place], *([column] if column else []), *columns[place:])
