"""The front as a picture: interactive for the report, and a PNG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_tasks.core.markup import as_label
from distill_tasks.reporting.labels import place_names
from distill_tasks.reporting.points import Point, Role
from distill_tasks.results.references import TEACHER
from distill_tasks.scoring.pareto import find_front

if TYPE_CHECKING:
    from distill_tasks.reporting.labels import Place
    from distill_tasks.results.findings import Findings
    from distill_tasks.scoring.scorecard import Scorecard

INK, GREY, GOLD = "#1b3a4b", "#9aa5ad", "#c8791a"

LEGEND: dict[Role, str] = {
    "chosen": "chosen",
    "front": "on the front",
    "other": "behind the front, or rejected",
    "teacher": "teacher, as it is and exported",
}
BEHIND_NAMES = "rgba(255, 255, 255, 0.8)"
COLOURS: dict[Role, str] = {"chosen": GOLD, "front": INK, "other": GREY, "teacher": INK}
LATENCY_AXIS = "p95 latency of one answer, ms (text in, label out; logarithmic)"
LINE_PX, LINE_POINTS = 17, 14
"""How far apart the levels of names stand, in the page and in the PNG."""
FRONT = "front at selection, on validation"
HELD_OUT = "the same on held-out"


def list_points(findings: Findings) -> list[Point]:
    """Return every timed model as a point of the picture.

    Models whose later export failed are left out, although they were timed.
    """
    validation, held_out = findings.validation, findings.held_out
    own = {TEACHER: "the model to be replaced"}
    own |= {one.name: "the teacher, exported" for one in findings.teacher_variants}
    points = []
    for name in findings.latencies.by_name:
        if name in own:
            about = own[name]
            cards = validation.models[name], held_out.models.get(name)
            points.append(_make_point(findings, name, about, *cards))
        elif name in validation.candidates:
            cards = validation.candidates[name], held_out.candidates.get(name)
            points.append(_make_point(findings, name, findings.selection.reasons[name], *cards))
    return points


def _make_point(
    findings: Findings, name: str, reason: str, card: Scorecard, held_out: Scorecard | None
) -> Point:
    """Return a model's point; without held-out where that was scored by another figure."""
    latency_ms = findings.latencies.by_name[name].p95_ms
    alike = findings.metric == findings.validation_metric
    about = (str(card.quality), f"p95 {latency_ms:.3g} ms", reason)
    return Point(
        name=name,
        quality=card.quality,
        held_out=held_out.quality if held_out and alike else None,
        latency_ms=latency_ms,
        role=_find_role(findings, name),
        note="<br>".join([f"<b>{as_label(name)}</b>", *map(as_label, about)]),
    )


def _find_role(findings: Findings, name: str) -> Role:
    selection = findings.selection
    if name in (TEACHER, *(one.name for one in findings.teacher_variants)):
        return "teacher"
    if name == selection.chosen:
        return "chosen"
    return "front" if name in selection.front else "other"


def draw_front(points: list[Point], metric: str) -> Any:
    """Return the front as a plotly figure; ``metric`` names the vertical axis."""
    import plotly.graph_objects as go

    figure = go.Figure()
    line = _front(points)
    figure.add_scatter(
        x=[point.latency_ms for point in line],
        y=[point.percent for point in line],
        mode="lines",
        line={"color": INK, "dash": "dot", "width": 1},
        hoverinfo="skip",
        name=FRONT,
    )
    for role, meaning in LEGEND.items():
        shown = [point for point in points if point.role == role]
        figure.add_scatter(
            x=[point.latency_ms for point in shown],
            y=[point.percent for point in shown],
            error_y={
                "type": "data",
                "array": [point.reach[1] for point in shown],
                "arrayminus": [point.reach[0] for point in shown],
                "color": COLOURS[role],
                "thickness": 1,
            },
            mode="markers",
            marker={
                "size": 14,
                "color": COLOURS[role],
                "symbol": "diamond" if role == "teacher" else "circle",
            },
            name=meaning,
            hovertext=[point.note for point in shown],
            hoverinfo="text",
        )
    seen = [(point, point.held_out) for point in points if point.held_out is not None]
    figure.add_scatter(
        x=[point.latency_ms for point, _ in seen],
        y=[100 * held_out.value for _, held_out in seen],
        mode="markers",
        marker={
            "size": 14,
            "symbol": "circle-open",
            "color": [COLOURS[point.role] for point, _ in seen],
        },
        name=HELD_OUT,
        hovertext=[
            f"<b>{as_label(point.name)}</b><br>held-out {held_out}" for point, held_out in seen
        ],
        hoverinfo="text",
    )
    figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "y": -0.2},
        xaxis_title=LATENCY_AXIS,
        yaxis_title=f"{metric} on validation, % (95 % interval)",
        margin={"t": 20, "r": 20},
    )
    left, right = _limits(points)
    for point, place in _place(points):
        figure.add_annotation(
            x=math.log10(point.latency_ms),
            y=point.percent,
            text=as_label(point.name),
            font={"color": COLOURS[point.role]},
            bgcolor=BEHIND_NAMES,
            borderpad=0,
            showarrow=False,
            xanchor="left" if place.side > 0 else "right",
            xshift=10 * place.side,
            yshift=LINE_PX * place.level,
        )
    figure.update_xaxes(
        type="log", range=[math.log10(left), math.log10(right)], dtick=1, minor={"ticks": "inside"}
    )
    return figure


def write_png(
    points: list[Point], metric: str, title: str, path: Path, *, dots_per_inch: int = 150
) -> None:
    """Write the front as a PNG of 8 × 5.2 inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 5.2), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    line = _front(points)
    axes.plot(
        [point.latency_ms for point in line],
        [point.percent for point in line],
        color=INK,
        linestyle=":",
        linewidth=1,
        zorder=1,
        label=FRONT,
    )
    for role, meaning in LEGEND.items():
        shown = [point for point in points if point.role == role]
        for number, point in enumerate(shown):
            axes.errorbar(
                point.latency_ms,
                point.percent,
                yerr=[[point.reach[0]], [point.reach[1]]],
                color=COLOURS[role],
                capsize=3,
                marker="D" if role == "teacher" else "o",
                markersize=8,
                elinewidth=1,
                label=meaning if number == 0 else None,
            )
    for point, place in _place(points):
        axes.annotate(
            point.name,
            (point.latency_ms, point.percent),
            xytext=(8 * place.side, LINE_POINTS * place.level),
            textcoords="offset points",
            horizontalalignment="left" if place.side > 0 else "right",
            verticalalignment="center",
            fontsize=9,
            color=COLOURS[point.role],
            fontweight="bold" if point.role == "chosen" else "normal",
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8},
            zorder=4,
            parse_math=False,
        )
    seen = [(point, point.held_out) for point in points if point.held_out is not None]
    axes.scatter(
        [point.latency_ms for point, _ in seen],
        [100 * held_out.value for _, held_out in seen],
        s=90,
        facecolors="none",
        edgecolors=[COLOURS[point.role] for point, _ in seen],
        zorder=3,
        label=HELD_OUT,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(*_limits(points))
    axes.set_xlabel(LATENCY_AXIS)
    axes.set_ylabel(f"{metric} on validation, % (95 % interval)")
    axes.set_title(title, fontsize=11, loc="left", parse_math=False)
    canvas.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, dpi=dots_per_inch)


def _front(points: list[Point]) -> list[Point]:
    """Return the students that no other student beats on the figures drawn, fastest first."""
    students = [point for point in points if point.role in ("chosen", "front")]
    if not students:
        return []
    on = find_front(np.array([(point.percent, point.latency_ms) for point in students]))
    best = [point for point, is_on in zip(students, on, strict=True) if is_on]
    return sorted(best, key=lambda point: point.latency_ms)


def _place(points: list[Point]) -> list[tuple[Point, Place]]:
    """Return every point with the place of its name."""
    places = place_names(points, *_limits(points))
    return [(point, places[point.name]) for point in points]


def _limits(points: list[Point]) -> tuple[float, float]:
    """Return the ends of the latency axis, with room for the names on the right."""
    latencies = [point.latency_ms for point in points]
    return min(latencies) / 1.6, max(latencies) * 2.5
