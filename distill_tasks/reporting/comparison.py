"""The comparison of a challenger with the champion: a page, a picture, a table and figures."""

from __future__ import annotations

import base64
import csv
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from distill_tasks.core.markup import as_cell, as_visible
from distill_tasks.core.terminal import Cells
from distill_tasks.core.wording import say_count
from distill_tasks.reporting.front import GOLD, INK, LATENCY_AXIS
from distill_tasks.reporting.tables import NOTHING
from distill_tasks.reporting.templates import fill_template
from distill_tasks.scoring.statistics import QUALITY_NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from distill_tasks.results.comparison import ComparedClass, Flip, ModelComparison

PAGE, PICTURE, FLIPS, FIGURES = "comparison.html", "front.png", "flips.csv", "comparison.json"
MOST_FLIPS = 200
"""Flips that the page shows; the table has them all."""
MOST_CHARACTERS = 300
"""Of a text on the page."""
NO_BREAK = "\N{NO-BREAK SPACE}"
NO_LABELS = "none"
"""What stands for an answer without labels."""
COLUMNS = (
    *("row", "change", "gold", "champion", "champion_confidence"),
    *("challenger", "challenger_confidence", "text"),
)


def write_files(comparison: ModelComparison, folder: Path) -> None:
    """Write a comparison into a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_both(comparison, folder / PICTURE)
    picture = (folder / PICTURE).read_bytes()
    (folder / PAGE).write_text(write_page(comparison, picture), encoding="utf-8")
    write_flips(comparison, folder / FLIPS)
    figures = json.dumps(list_figures(comparison), indent=2, ensure_ascii=False)
    (folder / FIGURES).write_text(f"{figures}\n", encoding="utf-8")


def write_page(comparison: ModelComparison, picture: bytes) -> str:
    """Return the page, which fetches nothing: MLflow shows it in a frame that may not."""
    values = {
        "title": f"Version {comparison.challenger.version} against champion "
        f"{comparison.champion.version} ({comparison.challenger.uri})",
        "answer": "May become champion." if comparison.promote else "Refused.",
        "style": "beats" if comparison.promote else "no-beats",
        "reason": f"{comparison.reason}.",
        "look": comparison.look,
        "figures": tabulate_models(comparison),
        "about": f"On {say_count(comparison.rows, 'held-out row')}, the same for both. Latency of "
        f"one answer (text in, label out), timed in one run on {comparison.timed_on}. "
        f"They agree on {100 * comparison.agreement:.2f} % of the rows.",
        "picture": base64.b64encode(picture).decode(),
        "classes": [_show_class(row) for row in comparison.classes],
        "flipped": say_flips(comparison),
        "flips": [_show_flip(flip) for flip in comparison.flips[:MOST_FLIPS]],
    }
    return fill_template("comparison.html.jinja", values)


def tabulate_models(comparison: ModelComparison) -> list[Cells]:
    """Return the figures of champion and challenger, and how they differ."""
    champion, challenger = comparison.champion, comparison.challenger
    metric = QUALITY_NAMES[comparison.metric]
    rows = {metric: (str(champion.quality), str(challenger.quality), comparison.difference.points)}
    if comparison.metric != "macro_f1":
        less = 100 * (challenger.macro_f1.value - champion.macro_f1.value)
        both = str(champion.macro_f1), str(challenger.macro_f1)
        rows[QUALITY_NAMES["macro_f1"]] = (*both, f"{less:+.2f} points")
    for name, theirs, ours in (
        ("p50 ms", champion.p50_ms, challenger.p50_ms),
        ("p95 ms", champion.p95_ms, challenger.p95_ms),
    ):
        rows[name] = (f"{theirs:.3g}", f"{ours:.3g}", f"{ours / theirs:.2f}×")
    titles = f"champion, version {champion.version}", f"challenger, version {challenger.version}"
    return [
        dict(zip(("held-out", *titles, "change"), (name, *cells), strict=True))
        for name, cells in rows.items()
    ]


def say_flips(comparison: ModelComparison) -> str:
    """Return how many rows only one of the two gets right, and how many the page shows."""
    shown = f" The first {MOST_FLIPS} are shown; {FLIPS} beside this page has all."
    return (
        f"{say_count(comparison.newly_wrong, 'row')} that the champion gets right and the "
        f"challenger does not, {comparison.newly_right:,} the other way round."
        + (shown if len(comparison.flips) > MOST_FLIPS else f" {FLIPS} has them with whole texts.")
    )


def write_flips(comparison: ModelComparison, path: Path) -> None:
    """Write every row that flips as a table that spreadsheets open."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # spreadsheets know it by that
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for flip in comparison.flips:
            said = map(as_cell, (flip.gold, *flip.answers, flip.text))
            gold, challenger, champion, text = said
            ours, theirs = (f"{sure:.4f}" for sure in flip.confidences)
            change = _name_change(flip)
            writer.writerow([flip.row, change, gold, champion, theirs, challenger, ours, text])


def list_figures(comparison: ModelComparison) -> dict[str, Any]:
    """Return the figures as plain data: all but the rows that flip, which are counted."""
    figures = asdict(comparison)
    del figures["flips"]
    counts = {"newly_wrong": comparison.newly_wrong, "newly_right": comparison.newly_right}
    return figures | counts


def draw_both(comparison: ModelComparison, path: Path) -> None:
    """Draw quality against latency of both models, with their 95 % intervals, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    for role, model, colour in (
        ("champion", comparison.champion, INK),
        ("challenger", comparison.challenger, GOLD),
    ):
        quality, (low, high) = model.quality, model.p95_interval_ms
        below, above = quality.value - quality.low, quality.high - quality.value
        axes.errorbar(
            model.p95_ms,
            100 * quality.value,
            xerr=[[max(model.p95_ms - low, 0)], [max(high - model.p95_ms, 0)]],
            yerr=[[100 * max(below, 0)], [100 * max(above, 0)]],
            color=colour,
            marker="o",
            markersize=9,
            capsize=3,
            label=f"{role}, version {model.version}",
        )
    ends = [*comparison.champion.p95_interval_ms, *comparison.challenger.p95_interval_ms]
    axes.set_xscale("log")
    axes.set_xlim(min(ends) / 1.6, max(ends) * 1.6)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel(LATENCY_AXIS)
    axes.set_ylabel(f"{QUALITY_NAMES[comparison.metric]} on held-out, %")
    axes.legend(frameon=False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, dpi=120)


def _show_class(row: ComparedClass) -> Cells:
    change = row.change
    return {
        "class": as_visible(row.name),
        "rows": f"{row.rows:,}",
        "change in F1": NOTHING if change is None else f"{change:+.3f}",
        "F1": _show_pair(row.f1),
        "recall": _show_pair(row.recall),
        "precision": _show_pair(row.precision),
    }


def _show_pair(figures: tuple[float | None, float | None]) -> str:
    ours, theirs = (NOTHING if value is None else f"{value:.3f}" for value in figures)
    return f"{theirs} → {ours}".replace(" ", NO_BREAK)


def _show_flip(flip: Flip) -> dict[str, Any]:
    text = flip.text[:MOST_CHARACTERS] + "…" * (len(flip.text) > MOST_CHARACTERS)
    ours, theirs = (
        f"{_show_labels(answer)} ({100 * sure:.0f} %)"
        for answer, sure in zip(flip.answers, flip.confidences, strict=True)
    )
    return {
        "row": flip.row,
        "change": _name_change(flip),
        "style": "loss" if flip.newly_wrong else "gain",
        "text": as_visible(text),
        "labels": [_show_labels(flip.gold), theirs, ours],
    }


def _name_change(flip: Flip) -> str:
    return "newly wrong" if flip.newly_wrong else "newly right"


def _show_labels(labels: str) -> str:
    return as_visible(labels) or NO_LABELS
