"""The front as pictures: an interactive page that opens offline, and a PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill_tasks.intervals import Figure

INK, GREY, GOLD = "#1b3a4b", "#9aa5ad", "#c8791a"


@dataclass(frozen=True)
class Point:
    """One model on the picture."""

    name: str
    accuracy: Figure
    latency_ms: float
    role: str
    """``teacher``, ``chosen``, ``front`` or ``other``."""
    note: str
    """What the reader sees on pointing at it."""

    @property
    def colour(self) -> str:
        """The colour of the point: gold for the chosen one, grey for those off the front."""
        return {"chosen": GOLD, "front": INK, "teacher": INK}.get(self.role, GREY)


LATENCY_AXIS = "p95 latency of one answer, ms (text in, label out; logarithmic)"
ACCURACY_AXIS = "held-out accuracy, % (95 % interval)"


def write_html(points: list[Point], title: str, path: Path) -> None:
    """Write the front as one HTML file that carries plotly itself."""
    import plotly.graph_objects as go

    figure = go.Figure()
    front = _front(points)
    figure.add_scatter(
        x=[point.latency_ms for point in front],
        y=[100 * point.accuracy.value for point in front],
        mode="lines",
        line={"color": INK, "dash": "dot", "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    for point in points:
        figure.add_scatter(
            x=[point.latency_ms],
            y=[100 * point.accuracy.value],
            error_y={
                "type": "data",
                "array": [100 * (point.accuracy.high - point.accuracy.value)],
                "arrayminus": [100 * (point.accuracy.value - point.accuracy.low)],
                "color": point.colour,
                "thickness": 1,
            },
            mode="markers+text",
            marker={
                "size": 14,
                "color": point.colour,
                "symbol": "diamond" if point.role == "teacher" else "circle",
            },
            text=[point.name],
            textposition="top center",
            name=point.name,
            hovertext=[point.note],
            hoverinfo="text",
        )
    figure.update_layout(
        title=title,
        template="plotly_white",
        showlegend=False,
        xaxis_title=LATENCY_AXIS,
        yaxis_title=ACCURACY_AXIS,
    )
    figure.update_xaxes(type="log")
    figure.write_html(path, include_plotlyjs=True)


def write_png(points: list[Point], title: str, path: Path) -> None:
    """Write the front as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    front = _front(points)
    axes.plot(
        [point.latency_ms for point in front],
        [100 * point.accuracy.value for point in front],
        color=INK,
        linestyle=":",
        linewidth=1,
        zorder=1,
    )
    for point in points:
        value = 100 * point.accuracy.value
        below, above = value - 100 * point.accuracy.low, 100 * point.accuracy.high - value
        axes.errorbar(
            point.latency_ms,
            value,
            yerr=[[below], [above]],
            color=point.colour,
            capsize=3,
            marker="D" if point.role == "teacher" else "o",
            markersize=8,
            elinewidth=1,
        )
        axes.annotate(
            point.name,
            (point.latency_ms, value),
            xytext=(9, 5),
            textcoords="offset points",
            fontsize=9,
            color=point.colour,
            fontweight="bold" if point.role == "chosen" else "normal",
        )
    axes.set_xscale("log")
    axes.set_xlabel(LATENCY_AXIS)
    axes.set_ylabel(ACCURACY_AXIS)
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * float(np.sqrt(right / left)) ** 0.25)
    canvas.savefig(path, dpi=150)


def _front(points: list[Point]) -> list[Point]:
    """Return the students on the front, fastest first."""
    on = [point for point in points if point.role in ("chosen", "front")]
    return sorted(on, key=lambda point: point.latency_ms)
