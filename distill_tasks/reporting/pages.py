"""The report as pages: markdown for MLflow's notes, and one interactive HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill_tasks.core.markup import as_markdown
from distill_tasks.reporting.charts import (
    draw_confusion,
    draw_learning_curve,
    draw_production,
    draw_reliability,
)
from distill_tasks.reporting.findings import (
    Findings,
    Row,
    headline,
    list_calibration,
    list_classes,
    list_points,
    list_variants,
    say_footprint,
    say_front,
    say_halving,
    say_verdict,
    speed_up,
    tabulate,
    warn,
)
from distill_tasks.reporting.front import draw_front
from distill_tasks.results.evaluator import TEACHER
from distill_tasks.scoring.fidelity import Example, Panel

IN_MARKDOWN = (
    "interval",
    "seeds",
    "verdict",
    "against control",
    "retention",
    "agreement",
    "p50 ms",
    "p95 ms",
    "speed-up",
    "MB",
)
"""Columns of the table beside the model and its quality; candidates.json has them all."""

TEMPLATE = Path(__file__).with_name("report.html.jinja")

ERRORS = {
    "new": "New: the teacher had these right",
    "inherited": "Inherited: the teacher is wrong too",
    "fixed": "Fixed: the teacher had these wrong",
    "disagreements": "Disagreements with the teacher",
}


def write_note(findings: Findings) -> str:
    """Return the summary in markdown: what MLflow shows on the run's page."""
    table = tabulate(findings)
    columns = ("model", findings.metric, *IN_MARKDOWN)
    parts = [
        f"# {as_markdown(findings.config.name)}",
        f"**{as_markdown(headline(findings))}**",
        *([as_markdown(say_verdict(findings.judgement))] if findings.judgement else []),
        "## Candidates",
        "Held-out figures, of several seeds their mean; the choice was made on validation.",
        markdown_table([{key: row[key] for key in columns} for row in table]),
        _named_bullets((f"{row['model']}:", row["outcome"]) for row in table),
        as_markdown(say_front(findings)),
        as_markdown(_say_cost(findings)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_markdown(findings: Findings) -> str:
    """Return the whole report in markdown."""
    variants = list_variants(findings)
    parts = [
        write_note(findings).strip(),
        "## Verdicts",
        _named_bullets((n, say_verdict(j)) for n, j in findings.proof.judgements.items()),
        *(["## Variants", markdown_table(variants)] if variants else []),
        *_about_choice(findings),
        "## Data",
        markdown_table(list_splits(findings)),
        _bullets(warn(findings)),
        "## Training",
        as_markdown(say_halving(findings)),
        as_markdown(_describe_objective(findings)),
        *([markdown_table(list_objectives(findings))] if findings.tuning.compared else []),
        as_markdown(findings.curve.meaning),
        as_markdown(_say_times(findings)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_page(findings: Findings, links: dict[str, str], path: Path) -> None:
    """Write the report as one HTML file that opens offline."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    path.write_text(template.render(**_fill(findings, links)), encoding="utf-8")


def markdown_table(table: list[Row]) -> str:
    """Return rows of text as a markdown table."""
    columns = list(table[0])
    cells = ([as_markdown(row[key]) for key in columns] for row in table)
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def list_splits(findings: Findings) -> list[Row]:
    """Return what the data report says of each split."""
    return [
        {
            "split": split.name,
            "rows": f"{split.rows:,}",
            "classes with rows": str(sum(rows > 0 for rows in split.classes.values()))
            if split.classes
            else "no gold",
            "exact repeats": str(split.exact_repeats),
            "near repeats": str(split.near_repeats),
            "longer than read": "–"
            if split.truncated is None
            else f"{100 * split.truncated:.1f} %",
        }
        for split in findings.corpus.report.splits
    ]


def list_objectives(findings: Findings) -> list[Row]:
    """Return every temperature and α that was compared."""
    return [
        {
            "T": f"{one.temperature:g}",
            "α": f"{one.alpha:g}",
            "validation loss": f"{one.loss:.4f}",
            f"validation {findings.validation_metric}": f"{one.quality:.4f}",
        }
        for one in findings.tuning.compared
    ]


def _describe_objective(findings: Findings) -> str:
    objective = findings.tuning.objective
    temperature, alpha = objective.temperature, objective.alpha
    return f"Temperature {temperature:g}, α {alpha:g}: {findings.tuning.reason}."


def _say_cost(findings: Findings) -> str:
    cost = findings.costs.get(findings.selection.chosen or "")
    return f"Of {findings.selection.chosen}, {cost}." if cost else ""


def _say_times(findings: Findings) -> str:
    seconds = {"teacher": findings.teacher.seconds, "labelling": findings.labels.seconds}
    trained = (s for s in findings.students if s.candidate == s.student)
    seconds |= {student.name: student.seconds for student in trained}
    return "Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()) + "."


def _about_choice(findings: Findings) -> list[str]:
    """Return the markdown sections on the chosen student."""
    choice = findings.selection.choice
    if choice is None or choice.name not in findings.proof.panels:
        return []
    panel = findings.proof.panels[choice.name]
    parts = [f"## What {as_markdown(choice.name)} gets wrong", _bullets(_say_errors(panel))]
    if panel.has_gold:
        parts += [markdown_table(list_classes(findings, choice))]
        parts += ["## Calibration", markdown_table(list_calibration(findings, choice))]
    for kind, group in panel.errors.items():
        if group.examples:
            parts.append(f"### {ERRORS[kind]}")
            parts.append(_bullets(map(_say_example, group.examples)))
    return parts


def _say_example(example: Example) -> str:
    gold = "" if example.gold is None else f"gold {example.gold or 'none'}, "
    return (
        f"{gold}teacher {example.teacher or 'none'}, student {example.student or 'none'} "
        f"({100 * example.confidence:.0f} % sure): {example.text}"
    )


def _say_errors(panel: Panel) -> list[str]:
    """Return how many errors there are of each kind, and the worst slice."""
    lines = []
    for kind, group in panel.errors.items():
        most = ", ".join(
            f"{c.right or 'none'} → {c.said or 'none'} ({c.rows})" for c in group.confusions
        )
        lines.append(
            f"{ERRORS[kind]}: {group.rows} rows" + (f"; most often {most}" if most else "")
        )
    worst, gap = panel.worst, panel.worst_difference
    if worst is not None and gap is not None:
        lines.append(
            f"Worst slice: {worst.kind} {worst.name}, {worst.rows} rows: student "
            f"{100 * worst.student:.1f} %, teacher {100 * worst.teacher:.1f} %, difference "
            f"{100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
        )
    return lines


def _fill(findings: Findings, links: dict[str, str]) -> dict[str, Any]:
    """Return the values of the template."""
    selection, choice, table = findings.selection, findings.selection.choice, tabulate(findings)
    panel = findings.proof.panels.get(selection.chosen or "")
    charts = {"front": draw_front(list_points(findings), findings.validation_metric)}
    if panel is not None and panel.has_gold:
        charts["reliability"] = draw_reliability(panel)
    if panel is not None:
        several = findings.config.problem == "multi_label"
        charts["confusion"] = draw_confusion(panel, findings.rows.classes, several)
    if findings.curve.points:
        charts["learning"] = draw_learning_curve(findings.curve, findings.metric)
    if selection.chosen in findings.proof.production:
        charts["production"] = draw_production(findings.proof.production[selection.chosen])
    return {
        "name": findings.config.name,
        "metric": findings.metric,
        "headline": headline(findings),
        "links": links,
        "cards": _fill_cards(findings),
        "table": [{k: v for k, v in row.items() if k != "outcome"} for row in table],
        "outcomes": {row["model"]: row["outcome"] for row in table},
        "front": say_front(findings),
        "variants": list_variants(findings),
        "cost": _say_cost(findings),
        "verdicts": {n: say_verdict(j) for n, j in findings.proof.judgements.items()},
        "warnings": warn(findings),
        "chosen": selection.chosen,
        "errors": _say_errors(panel) if panel else [],
        "error_groups": panel.errors if panel else {},
        "error_titles": ERRORS,
        "classes": list_classes(findings, choice) if choice and panel and panel.has_gold else [],
        "slices": panel.slices if panel else [],
        "calibration": list_calibration(findings, choice)
        if choice and panel and panel.has_gold
        else [],
        "splits": list_splits(findings),
        "halving": say_halving(findings),
        "blend": _describe_objective(findings),
        "blends": list_objectives(findings),
        "curve": findings.curve.meaning,
        "production": findings.proof.production.get(selection.chosen or ""),
        "charts": _embed(charts),
    }


def _fill_cards(findings: Findings) -> list[dict[str, Any]]:
    """Return the first screen: which student, how good, how fast, what it gets wrong."""
    choice = findings.selection.choice
    if choice is None:
        return []
    card, teacher = findings.held_out.candidates[choice.name], findings.held_out.models[TEACHER]
    control = findings.held_out.on_gold.get(choice.student.student)
    faster, judgement = speed_up(findings, choice.latency), findings.judgement
    panel = findings.proof.panels[choice.name]
    lines = [f"teacher {teacher.quality}"]
    if control is not None:
        lines.append(f"the same student on gold alone {control.quality}")
    if card.spread:
        low, high = card.spread.get(f"quality/{card.metric}", (0.0, 0.0))
        lines.append(f"seeds from {low:.4f} to {high:.4f}")
    return [
        {
            "title": "The student",
            "value": choice.name,
            "lines": [
                f"{choice.student.parameters:,} parameters, {choice.student.disk_mb:.1f} MB",
                f"seed {choice.student.seed}",
                *([str(choice.parity)] if choice.parity else []),
                findings.selection.reasons[choice.name],
            ],
        },
        {
            "title": f"Held-out {findings.metric}",
            "value": f"{100 * card.quality.value:.2f} %",
            "aside": f"[{100 * card.quality.low:.2f}, {100 * card.quality.high:.2f}]",
            "lines": lines,
        },
        {
            "title": "Did the teacher help?",
            "value": str(judgement.verdict) if judgement else "–",
            "verdict": str(judgement.verdict).replace(" ", "-").lower() if judgement else "",
            "lines": [judgement.reason, *judgement.flags] if judgement else [],
        },
        {
            "title": "Speed",
            "value": f"{faster:.0f}×" if faster else "–",
            "aside": "faster than the teacher" if faster else "the teacher has no weights here",
            "lines": [
                f"p50 {choice.latency.p50_ms:.3g} ms, p95 {choice.latency.p95_ms:.3g} ms",
                "text in, label out, one text at a time",
                f"{choice.latency.device}, {choice.latency.threads} thread(s)",
                say_footprint(choice.footprint),
                *([_say_cost(findings)] if findings.costs else []),
            ],
        },
        {
            "title": "Wrong where the teacher was right" if panel.has_gold else "Disagreements",
            "value": str(panel.errors["new" if panel.has_gold else "disagreements"].rows),
            "aside": f"of {card.quality.rows:,} rows",
            "lines": _say_errors(panel),
        },
    ]


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
    """Return texts as a list, each behind its name."""
    return "\n".join(f"- **{as_markdown(name)}** {as_markdown(text)}" for name, text in named)
