"""The charts of the report: calibration, confusion, the learning curve, production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill_tasks.core.markup import as_label
from distill_tasks.reporting.front import GOLD, GREY, INK

if TYPE_CHECKING:
    from distill_tasks.scoring.fidelity import Panel, ReliabilityBin
    from distill_tasks.scoring.learning_curve import LearningCurve
    from distill_tasks.scoring.production import ProductionCheck

COLOURS = {"teacher": INK, "student": GOLD}
HEIGHT_PX = 380


def draw_reliability(panel: Panel) -> Any:
    """Return the share of right answers by confidence, for teacher and student."""
    figure = _blank("confidence", "share right")
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": GREY, "dash": "dot"},
        name="calibrated",
        hoverinfo="skip",
    )
    for name, bins in panel.reliability.items():
        figure.add_scatter(
            x=[one.confidence for one in bins],
            y=[one.right for one in bins],
            mode="lines+markers",
            line={"color": COLOURS[name]},
            name=name,
            text=[_describe(one) for one in bins],
            hoverinfo="text",
        )
    return figure


def draw_confusion(panel: Panel, classes: tuple[str, ...], several: bool) -> Any:
    """Return which classes the student predicts where it disagrees with the teacher."""
    labels = [as_label(name) for name in classes]
    answers = ["both", "teacher alone", "student alone", "neither"] if several else labels
    cells: list[list[int | None]] = [
        [None if not several and row == column else count for column, count in enumerate(counts)]
        for row, counts in enumerate(panel.confusion)
    ]
    figure = _blank("student says", "teacher says" if not several else "label")
    figure.add_heatmap(
        z=cells,
        x=answers,
        y=labels,
        colorscale=[[0, "#ffffff"], [1, GOLD]],
        texttemplate="%{z}",
        showscale=False,
        hovertemplate="teacher %{y}, student %{x}: %{z} rows<extra></extra>",
    )
    figure.update_xaxes(type="category")  # a class named 10 or 2026-01-01 is a name
    figure.update_yaxes(type="category", autorange="reversed")
    return figure


def draw_learning_curve(curve: LearningCurve, metric: str) -> Any:
    """Return quality against the number of transfer rows."""
    figure = _blank("transfer rows (logarithmic)", f"held-out {metric}, %")
    values = [100 * point.quality.value for point in curve.points]
    figure.add_scatter(
        x=[point.transfer_rows for point in curve.points],
        y=values,
        error_y={
            "type": "data",
            "array": [100 * p.quality.high - v for p, v in zip(curve.points, values, strict=True)],
            "arrayminus": [
                v - 100 * p.quality.low for p, v in zip(curve.points, values, strict=True)
            ],
            "thickness": 1,
        },
        mode="lines+markers",
        line={"color": INK},
        name=as_label(curve.student),
    )
    figure.update_xaxes(type="log", tickvals=[point.transfer_rows for point in curve.points])
    return figure


def draw_production(check: ProductionCheck) -> Any:
    """Return the student's confidence on production beside held-out."""
    figure = _blank("confidence", "share of rows")
    shown = {"production": (check.confidence, GOLD), "held-out": (check.held_out_confidence, INK)}
    middles = [
        (low + high) / 2
        for low, high in zip(check.confidence_edges[:-1], check.confidence_edges[1:], strict=True)
    ]
    for name, (shares, colour) in shown.items():
        figure.add_bar(x=middles, y=shares, name=name, marker_color=colour)
    figure.update_layout(barmode="group")
    return figure


def _blank(across: str, up: str) -> Any:
    import plotly.graph_objects as go

    return go.Figure().update_layout(
        template="plotly_white",
        height=HEIGHT_PX,
        margin={"t": 20, "r": 20},
        legend={"orientation": "h", "y": -0.25},
        xaxis_title=across,
        yaxis_title=up,
    )


def _describe(one: ReliabilityBin) -> str:
    return f"{one.rows} rows: {100 * one.confidence:.1f} % sure, {100 * one.right:.1f} % right"
