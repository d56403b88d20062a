"""The front as pictures: an interactive page that opens offline, and a PNG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from distill_tasks.intervals import Figure
from distill_tasks.pareto import find_front

INK, GREY, GOLD = "#1b3a4b", "#9aa5ad", "#c8791a"

Role = Literal["chosen", "front", "other", "teacher"]

LEGEND: dict[Role, str] = {
    "chosen": "chosen",
    "front": "on the front at selection (validation)",
    "other": "dominated, or misses a constraint",
    "teacher": "teacher",
}
COLOURS: dict[Role, str] = {"chosen": GOLD, "front": INK, "other": GREY, "teacher": INK}
LATENCY_AXIS = "p95 latency of one answer, ms (text in, label out; logarithmic)"
ACCURACY_AXIS = "held-out accuracy, % (95 % interval)"


@dataclass(frozen=True)
class Point:
    """One model on the picture."""

    name: str
    accuracy: Figure
    latency_ms: float
    role: Role
    note: str
    """What the reader sees on pointing at it."""

    @property
    def percent(self) -> float:
        """Accuracy in percent."""
        return 100 * self.accuracy.value

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval goes below and above the accuracy, in percent."""
        return self.percent - 100 * self.accuracy.low, 100 * self.accuracy.high - self.percent


def write_html(points: list[Point], title: str, path: Path) -> None:
    """Write the front as one HTML file that carries plotly itself."""
    import plotly.graph_objects as go

    figure = go.Figure()
    line = _held_out_front(points)
    figure.add_scatter(
        x=[point.latency_ms for point in line],
        y=[point.percent for point in line],
        mode="lines",
        line={"color": INK, "dash": "dot", "width": 1},
        hoverinfo="skip",
        name="front of the students on held-out",
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
            mode="markers+text",
            marker={
                "size": 14,
                "color": COLOURS[role],
                "symbol": "diamond" if role == "teacher" else "circle",
            },
            text=[point.name for point in shown],
            textposition="middle right",
            name=meaning,
            hovertext=[point.note for point in shown],
            hoverinfo="text",
        )
    figure.update_layout(
        title=title,
        template="plotly_white",
        legend={"orientation": "h", "y": -0.2},
        xaxis_title=LATENCY_AXIS,
        yaxis_title=ACCURACY_AXIS,
    )
    left, right = _limits(points)
    figure.update_xaxes(
        type="log", range=[math.log10(left), math.log10(right)], dtick=1, minor={"ticks": "inside"}
    )
    figure.write_html(path, include_plotlyjs=True)


def write_png(points: list[Point], title: str, path: Path) -> None:
    """Write the front as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 4.8), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    line = _held_out_front(points)
    axes.plot(
        [point.latency_ms for point in line],
        [point.percent for point in line],
        color=INK,
        linestyle=":",
        linewidth=1,
        zorder=1,
        label="front of the students on held-out",
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
            axes.annotate(
                point.name,
                (point.latency_ms, point.percent),
                xytext=(7, 6),
                textcoords="offset points",
                fontsize=9,
                color=COLOURS[role],
                fontweight="bold" if role == "chosen" else "normal",
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(*_limits(points))
    axes.set_xlabel(LATENCY_AXIS)
    axes.set_ylabel(ACCURACY_AXIS)
    axes.set_title(title, fontsize=11, loc="left")
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, dpi=150)


def _held_out_front(points: list[Point]) -> list[Point]:
    """Return the students that no other beats on the figures drawn, fastest first."""
    students = [point for point in points if point.role != "teacher"]
    if not students:
        return []
    on = find_front(np.array([(point.percent, point.latency_ms) for point in students]))
    best = [point for point, is_on in zip(students, on, strict=True) if is_on]
    return sorted(best, key=lambda point: point.latency_ms)


def _limits(points: list[Point]) -> tuple[float, float]:
    """Return the ends of the latency axis, with room for the names on the right."""
    latencies = [point.latency_ms for point in points]
    return min(latencies) / 1.6, max(latencies) * 2.5
