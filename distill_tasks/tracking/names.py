"""Names of the few metrics that MLflow shows; a run's `figures.json` has every figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.scoring.statistics import QUALITY_NAMES, Quality

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = {
    "quality/accuracy": QUALITY_NAMES["accuracy"],
    "quality/macro_f1": QUALITY_NAMES["macro_f1"],
    "fidelity/retention": "retention",
    "fidelity/agreement": "agreement",
    "latency/p50_ms": "p50 ms",
    "latency/p95_ms": "p95 ms",
    "model/disk_mb": "disk MB",
    "model/parameters": "parameters",
    "production/agreement": "agreement on production",
}
"""The metric that shows a figure. MLflow sorts charts by name, so that accuracy stands first."""
CURVES = {
    "train/loss": "training loss",
    "train/rows_per_s": "training rows per s",
    "validation/loss": "training validation loss",
    "validation/accuracy": "training validation accuracy",
    "validation/macro_f1": "training validation macro F1",
}
"""The metric that shows a curve of a training, by step; below the results in every view."""
SPEED_UP = "speed-up p95"
"""The metric of a summary run: the teacher's p95 latency divided by the chosen student's."""
MOST_WORDS = 500
"""Characters of a tag with words for people: MLflow takes 5,000, its pages show fewer."""
CHOSEN = "student"
"""The tag of a summary run that names the chosen student."""
OUTCOME = "outcome"
"""The tag of a summary run that says what became of the registered version."""
LICENCE = "teacher_licence"
"""The tag of a version that says under which terms its teacher was learned from."""
CALL = "## How to call it"
"""Begins the last section of a card; a folder of the model says how itself."""
GAIN = "gain over control"
"""The metric of a judged student: its quality minus that of itself without the teacher."""


def name_metrics(values: Mapping[str, float], metric: Quality) -> dict[str, float]:
    """Return the values that MLflow shows by metric; ``metric`` is what models are compared by."""
    shown = SHOWN | {f"quality/{metric}": QUALITY_NAMES[metric]}
    return {shown[name]: value for name, value in values.items() if name in shown}
