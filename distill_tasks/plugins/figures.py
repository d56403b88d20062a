"""The evaluator's figures: where student and teacher disagree, and how sure they should be."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from distill_tasks.core.markup import as_visible
from distill_tasks.plugins.asking import STUDENT, TEACHER
from distill_tasks.scoring.statistics import equal_mass_bins

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from distill_tasks.plugins.asking import Asked

COLOURS = {TEACHER: "#3b3a36", STUDENT: "#c8811a", "baseline": "#8d99a6"}
MOST_CLASSES = 20
"""Classes in the figure of disagreements: those with the most."""
LONGEST_NAME = 24


def draw_disagreements(asked: Asked, path: Path) -> None:
    """Draw how often the student gives one class where the teacher gives another."""
    said = [asked.answers[role].labels for role in (TEACHER, STUDENT)]
    pairs = Counter(pair for pair in zip(*said, strict=True) if pair[0] != pair[1])
    often = Counter[str]()
    for pair, count in pairs.items():
        often.update(dict.fromkeys(pair, count))
    classes = sorted(name for name, _ in often.most_common(MOST_CLASSES))
    counts = np.array([[pairs[row, column] for column in classes] for row in classes])
    size = 2.5 + 0.45 * max(len(classes), 4)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    share = sum(pairs.values()) / len(asked.rows)
    axes.set_title(f"They disagree on {100 * share:.1f} % of {len(asked.rows):,} rows")
    axes.set_xlabel("student says")
    axes.set_ylabel("teacher says")
    _name_ticks(axes, classes)
    if classes:
        axes.imshow(counts, cmap="YlOrBr", vmin=0)
        for row, column in np.argwhere(counts):
            count = counts[row, column]
            colour = "white" if count > counts.max() / 2 else "black"
            axes.text(column, row, count, ha="center", va="center", color=colour)
    figure.savefig(path, dpi=120)


def draw_calibration(asked: Asked, path: Path) -> None:
    """Draw the share of right answers by confidence, in bins of as many rows each."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#b9b9b9", linestyle=":", label="calibrated")
    for role, said in asked.answers.items():
        if said.confidence is None:
            continue
        right = said.labels == asked.gold
        bins = [rows for rows in equal_mass_bins(said.confidence) if len(rows)]
        sure = [said.confidence[rows].mean() for rows in bins]
        share = [right[rows].mean() for rows in bins]
        axes.plot(sure, share, color=COLOURS[role], marker="o", markersize=4, label=role)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share right")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _name_ticks(axes: Axes, classes: list[str]) -> None:
    """Write class names along both sides as they are: a dollar sign begins no formula."""
    names = [as_visible(name) for name in classes]
    short = [n if len(n) <= LONGEST_NAME else f"{n[: LONGEST_NAME - 1]}…" for n in names]
    places = range(len(classes))
    axes.set_xticks(places, short, rotation=90, parse_math=False)
    axes.set_yticks(places, short, parse_math=False)
