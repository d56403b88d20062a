"""Views of an experiment's runs that links open: which columns and charts MLflow's UI shows.

MLflow keeps what its button "Share" makes as a tag of the experiment, and opens it for a link that
names its key. A view of ours is such a tag.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from distill_tasks.tracking.names import SHOWN, SPEED_UP

RUNS = "potstill"
"""The key of the view of all runs: each distillation with its models below it."""
TAG = "mlflow.sharedViewState."
VERDICT, CHAMPION = "verdict", "champion"
"""Tags of a summary run that the view of all runs shows as columns."""
P50, P95, MACRO_F1 = (SHOWN[f] for f in ("latency/p50_ms", "latency/p95_ms", "quality/macro_f1"))
WIDTH_PX = 95
SECTION = "quality-and-latency"
CHART = {"runsCountToCompare": 20, "deleted": False, "isGenerated": False}
SHOWN_SECTION = {
    "display": True,
    "isReordered": False,
    "deleted": False,
    "isGenerated": False,
    "columns": 2,
}


@dataclass(frozen=True)
class Qualities:
    """The metrics that models are compared by."""

    held_out: str
    """That of teacher, finalists and controls."""
    validation: str
    """That of all candidates."""


def share_views(experiment_id: str, distillation: str, qualities: Qualities) -> None:
    """Write the view of all runs, and the one that compares the models of a distillation."""
    from mlflow import MlflowClient

    views = {RUNS: list_runs(qualities), distillation: compare_models(distillation, qualities)}
    for key, view in views.items():
        MlflowClient().set_experiment_tag(experiment_id, TAG + key, json.dumps(view))


def list_runs(qualities: Qualities) -> dict[str, Any]:
    """Return the view of all runs, the latest distillation first."""
    figures = dict.fromkeys([qualities.held_out, MACRO_F1, P95, SPEED_UP])
    columns = [f"tags.`{tag}`" for tag in (VERDICT, CHAMPION)]
    columns += [f"metrics.`{figure}`" for figure in figures]
    columns.append("attributes.`Models`")
    return {
        "orderByKey": "attributes.start_time",  # by any other key models stand beside their run
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, WIDTH_PX) | {columns[-1]: 2 * WIDTH_PX},
        **_draw(qualities),
    }


def compare_models(distillation: str, qualities: Qualities) -> dict[str, Any]:
    """Return the view that compares the models of one distillation, the best one first.

    Its summary run is left out, which repeats the figures of the chosen model.
    """
    mine = f"tags.distillation = '{distillation}'"
    return {
        "searchFilter": f"{mine} AND tags.`potstill.role` != 'summary'",
        "orderByKey": f"metrics.`{qualities.validation}`",
        "orderByAsc": False,
        "selectedColumns": [f"metrics.`{figure}`" for figure in (qualities.held_out, P95)],
        **_draw(qualities),
    }


def _draw(qualities: Qualities) -> dict[str, Any]:
    """Return the charts of a view: quality against latency, then each of them as bars."""
    bars = dict.fromkeys([qualities.held_out, MACRO_F1, P95, P50])
    drawn = [
        *(_draw_scatter(quality) for quality in (qualities.held_out, qualities.validation)),
        *({"type": "BAR", "metricKey": name} for name in bars),
    ]
    charts = [
        {"uuid": f"{SECTION}-{number}", "metricSectionId": SECTION, **CHART, **chart}
        for number, chart in enumerate(drawn)
    ]
    sections = {SECTION: "Quality and latency", "others": "Model metrics"}
    return {
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [
            {"uuid": uuid, "name": name, **SHOWN_SECTION} for uuid, name in sections.items()
        ],
    }


def _draw_scatter(quality: str) -> dict[str, Any]:
    """Return a chart of a quality against latency."""
    axes = {"xaxis": P95, "yaxis": quality}
    return {"type": "SCATTER"} | {
        axis: {"key": name, "type": "METRIC"} for axis, name in axes.items()
    }
