"""The report's tables as text: each row is a dictionary of cells by column title."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.core.markup import as_markdown
from distill_tasks.core.terminal import Cells
from distill_tasks.core.wording import say_speed
from distill_tasks.measuring.cost import say_price
from distill_tasks.reporting.rows import list_calibration, list_classes, list_models, list_variants

if TYPE_CHECKING:
    from distill_tasks.reporting.rows import CalibrationRow, ClassRow, ModelRow, VariantRow
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.selection import Candidate
    from distill_tasks.scoring.intervals import Figure

NOTHING = "–"
"""The cell of a missing figure."""


def tabulate_models(findings: Findings) -> list[Cells]:
    """Return the table of all models, with every column."""
    return [show_model(row, findings) for row in list_models(findings)]


def name_quality_columns(findings: Findings) -> tuple[str, ...]:
    """Return the quality columns that every table has."""
    return (findings.metric, "interval", *(["macro F1"] if findings.needs_macro_f1 else []))


def show_model(row: ModelRow, findings: Findings) -> Cells:
    """Return one row of the table of all models."""
    quality, latency, faster, footprint = row.quality, row.latency, row.speed_up, row.footprint
    cells = {
        "model": row.name,
        findings.metric: _figure(quality.value if quality else None, ".4f"),
        "interval": f"{quality.low:.3f}–{quality.high:.3f}" if quality else NOTHING,
        **({} if findings.metric == "macro F1" else {"macro F1": _figure(row.macro_f1, ".4f")}),
        "seeds": f"{row.seeds[0]:.4f}–{row.seeds[1]:.4f}" if row.seeds else NOTHING,
        "on validation": _figure(
            row.validation_quality.value if row.validation_quality else None, ".4f"
        ),
        "verdict": str(row.verdict or NOTHING),
        "against control": _points(row.less_control),
        "p50 ms": _figure(latency.p50_ms if latency else None, ".3g"),
        "p95 ms": _figure(latency.p95_ms if latency else None, ".3g"),
        "speed-up p50": say_speed(faster.p50) if faster else NOTHING,
        "speed-up p95": say_speed(faster.p95) if faster else NOTHING,
        **_show_against_variant(row, findings),
        "outcome": row.outcome,
        "retention": _figure(row.retention, ".4f"),
        "agreement": _figure(row.agreement, ".4f"),
        "ECE": _figure(row.ece, ".4f"),
        "rows/s": _figure(latency.throughput if latency else None, ",.0f"),
        "MB": _figure(row.disk_mb, ".1f"),
        "parameters": _figure(row.parameters, ","),
        "resident MB": _figure(footprint.resident_mb if footprint else None, ".0f"),
        "installed MB": _figure(footprint.installed_mb if footprint else None, ".0f"),
        "cold start s": _figure(footprint.cold_start_s if footprint else None, ".2f"),
    }
    if findings.config.cost:
        price = row.price_per_1000
        cells["per 1,000"] = NOTHING if price is None else say_price(price)
    return cells


def name_against_variant(findings: Findings) -> str | None:
    """Return the column of speed-ups over the teacher's best variant; None where it has none."""
    best = findings.best_teacher_variant
    return f"p50 against {best.name}" if best else None


def _show_against_variant(row: ModelRow, findings: Findings) -> Cells:
    column, faster = name_against_variant(findings), row.speed_up_over_variant
    return {column: say_speed(faster.p50) if faster else NOTHING} if column else {}


def tabulate_variants(findings: Findings) -> list[Cells]:
    """Return what may be served of every student that has variants; empty where none has."""
    return [_show_variant(row, findings) for row in list_variants(findings)]


def tabulate_classes(findings: Findings, choice: Candidate) -> list[Cells]:
    """Return precision, recall and F1 of the chosen student by class, beside the teacher's F1."""
    return [_show_class(row) for row in list_classes(findings, choice)]


def tabulate_calibration(findings: Findings, choice: Candidate) -> list[Cells]:
    """Return the calibration of teacher and chosen student, with their fitted temperatures."""
    return [_show_calibration(row) for row in list_calibration(findings, choice)]


def tabulate_splits(findings: Findings) -> list[Cells]:
    """Return the data report's figures for each split."""
    return [
        {
            "split": split.name,
            "rows": f"{split.rows:,}",
            "classes with rows": str(sum(rows > 0 for rows in split.classes.values()))
            if split.classes
            else "no gold",
            "exact repeats": str(split.exact_repeats),
            "near repeats": str(split.near_repeats),
            "longer than read": NOTHING
            if split.truncated is None
            else f"{100 * split.truncated:.1f} %",
        }
        for split in findings.corpus.report.splits
    ]


def tabulate_objectives(findings: Findings) -> list[Cells]:
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


def markdown_table(table: list[Cells]) -> str:
    """Return rows of text as a markdown table."""
    columns = list(table[0])
    cells = ([as_markdown(row[key]) for key in columns] for row in table)
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _show_variant(row: VariantRow, findings: Findings) -> Cells:
    parity, held_out = row.validation, row.held_out
    return {
        "model": row.name,
        "p50 ms": f"{row.p50_ms:.3g}",
        "against torch p50": f"{row.speed_up.p50:.2f}×",
        "against torch p95": f"{row.speed_up.p95:.2f}×",
        f"validation {findings.validation_metric}": parity.change.points if parity else NOTHING,
        f"held-out {findings.metric}": held_out.change.points if held_out else NOTHING,
        "other labels": f"{parity.flips} of {parity.answers:,}" if parity else NOTHING,
        "largest logit difference": f"{parity.largest_logit_difference:.2g}" if parity else NOTHING,
    }


def _show_class(row: ClassRow) -> Cells:
    return {
        "class": row.name,
        "rows": str(row.rows) if row.rows else "0: absent from held-out",
        "precision": _figure(row.precision, ".3f"),
        "recall": _figure(row.recall, ".3f"),
        "F1": _figure(row.f1, ".3f"),
        "teacher's F1": _figure(row.teacher_f1, ".3f"),
        "less the teacher's": _figure(row.less_teacher, "+.3f"),
    }


def _show_calibration(row: CalibrationRow) -> Cells:
    return {
        "model": row.name,
        "ECE": _interval(row.ece),
        "NLL": _interval(row.nll),
        "Brier": _interval(row.brier),
        "temperature": f"{row.temperature:.2f}",
        "answers": _interval(row.coverage),
        "right of those": _interval(row.precision),
    }


def _figure(value: float | None, form: str) -> str:
    return NOTHING if value is None else f"{value:{form}}"


def _interval(figure: Figure | None) -> str:
    if figure is None:
        return NOTHING
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _points(gap: Figure | None) -> str:
    """Return a difference in percentage points with its interval."""
    if gap is None:
        return NOTHING
    return f"{100 * gap.value:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"
