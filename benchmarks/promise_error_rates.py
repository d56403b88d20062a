"""How often does a model pass for keeping a promise that it does not keep? A simulation.

Held-out sets are drawn from models whose true quality is known: exactly what was promised, so that
whoever is called surely better is called so wrongly. Up to three finalists that resemble each other
and the teacher are tested one after the other, as a run would do. Prints tables for people and, as
its last line, one JSON object:

- ``false_kept``: share of sets in which any finalist is said to surely keep the promise; the worst
  of all settings of retention, accuracy and the recall of one class.
- ``power_2_points``: share in which a single finalist truly 2 points better than was promised is
  found to keep it on 3,000 rows; the worst of the settings.
- ``kept_by_estimate``: as ``false_kept``, where only the estimate has to reach the promise
  (``promise: point``): one half for a single finalist, more for several.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from distill_tasks.data.corpus import Split
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.promises import Promise, PromiseTest, check_promises, share_error
from distill_tasks.scoring.scorecard import EvalSplit, Predictions

SETS, ALIKE_SETS = 1500, 10_000
"""The latter where many sets have the same counts, which are tested once: all but retention."""
HOPELESS = 0.5
"""Standard errors above the promise up to which no lower end reaches it, so none is looked for."""
ROWS = (300, 1000, 3000)
ACCURACIES = (0.75, 0.95)
"""Of the teacher; its students keep `KEPT` of it."""
KEPT = 0.98
FINALISTS = (1, 3)
ALIKE = 0.8
"""Correlation of what makes a row hard for one model and for another."""
CLASS_ROWS, CLASS_RECALLS = (5, 15, 50), (0.6, 0.9)
"""Rows of the class that a promise is about, of 1,000, and its true recall."""
LEAD = 0.02

Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Setting:
    """One kind of held-out set, and the promise made about it."""

    promise: Promise
    rows: int
    class_rows: int
    """Rows of the first class, that a promise about one class is about."""
    right: float
    """True share of the rows that each student gets right."""
    teacher_right: float
    finalists: int


def draw_hits(generator: np.random.Generator, shares: list[float], rows: int) -> Hits:
    """Return which rows each of several models gets right (models, rows), those shares of them.

    A row that is hard for one is hard for the others: a Gaussian copula with correlation `ALIKE`.
    """
    common = generator.standard_normal(rows)
    own = generator.standard_normal((len(shares), rows))
    hardness = np.sqrt(ALIKE) * common + np.sqrt(1 - ALIKE) * own
    bars = [NormalDist().inv_cdf(share) for share in shares]
    return hardness < np.array(bars)[:, None]


def count_cells(setting: Setting, teacher: Hits, student: Hits) -> tuple[int, ...]:
    """Return how many rows of either class both, one or neither of two models get right.

    What the promise is not about is made the same in all sets, so that many of them are alike.
    """
    second = np.arange(setting.rows) >= setting.class_rows
    if setting.promise.of_class:
        student = student | second
    else:
        second = np.zeros_like(second)
    if setting.promise.measure != "retention":
        teacher = np.ones_like(teacher)
    return tuple(np.bincount(4 * second + 2 * teacher + student, minlength=8).tolist())


@cache
def check_cells(promise: Promise, cells: tuple[int, ...], error: float) -> PromiseTest:
    """Return what held-out rows say of a promise, of which only these counts matter."""
    gold, taught, said = np.unravel_index(np.repeat(np.arange(8), cells), (2, 2, 2))
    teacher, student = (
        Predictions(np.eye(2, dtype=np.float32)[np.where(hit, gold, 1 - gold)], Calibration())
        for hit in (taught, said)
    )
    rows = Split(("",) * len(gold), gold)
    held_out = EvalSplit("held_out", rows, teacher, ("a", "b"), "single_label", "accuracy")
    return check_promises([promise], held_out, student, error=error, seed=0)[0]


def find_kept(setting: Setting) -> tuple[float, float]:
    """Return the shares of sets in which any finalist keeps the promise: surely, by estimate."""
    generator, surely, point = np.random.default_rng(setting.rows), 0, 0
    errors = share_error(setting.finalists)
    sets = SETS if setting.promise.measure == "retention" else ALIKE_SETS
    shares = [setting.teacher_right, *[setting.right] * setting.finalists]
    for _ in range(sets):
        teacher, *students = draw_hits(generator, shares, setting.rows)
        cells = [count_cells(setting, teacher, student) for student in students]
        leads = [find_lead(setting.promise, counted) for counted in cells]
        surely += any(
            lead > HOPELESS and check_cells(setting.promise, counted, error).is_kept("surely")
            for lead, counted, error in zip(leads, cells, errors, strict=True)
        )
        point += max(leads) >= 0
    return surely / sets, point / sets


def find_lead(promise: Promise, cells: tuple[int, ...]) -> float:
    """Return by how many of its standard errors, roughly, the estimate is above the promise."""
    _, student, teacher, both, *_ = cells
    return (student + both - promise.least * (teacher + both)) / max(student + teacher, 1) ** 0.5


def list_settings() -> Iterator[Setting]:
    """Yield the settings in which every finalist is exactly as good as was promised."""
    for finalists in FINALISTS:
        for teacher_right in ACCURACIES:
            right = KEPT * teacher_right
            for rows in ROWS:
                for promise in (Promise("retention", KEPT), Promise("accuracy", right)):
                    yield Setting(promise, rows, rows // 2, right, teacher_right, finalists)
        for recall in CLASS_RECALLS:
            for rows in CLASS_ROWS:
                promise = Promise("class_recall", recall, "a")
                yield Setting(promise, 1000, rows, recall, recall, finalists)


def list_better() -> Iterator[Setting]:
    """Yield the settings in which a single finalist is better than was promised."""
    rows = max(ROWS)
    for teacher_right in ACCURACIES:
        right = KEPT * teacher_right
        promises = (Promise("retention", KEPT - LEAD), Promise("accuracy", right - LEAD))
        for promise in promises:
            yield Setting(promise, rows, rows // 2, right, teacher_right, 1)


def tabulate(settings: list[Setting], kept: list[tuple[float, float]]) -> list[dict[str, str]]:
    """Return settings and the shares of sets as rows of text."""
    return [
        {
            "promise": str(setting.promise),
            "rows": f"{setting.class_rows if setting.promise.of_class else setting.rows:,}",
            "teacher right": f"{setting.teacher_right:g}",
            "finalists": str(setting.finalists),
            "surely kept": f"{100 * surely:.1f} %",
            "kept by the estimate": f"{100 * point:.1f} %",
        }
        for setting, (surely, point) in zip(settings, kept, strict=True)
    ]


def find_false_kept() -> float:
    """Return the share of sets with a finalist said to surely keep it, in the worst setting."""
    return max(find_kept(setting)[0] for setting in list_settings())


def main() -> None:
    """Print the tables and the JSON line."""
    equal, better = list(list_settings()), list(list_better())
    at_the_bar, above = ([find_kept(setting) for setting in part] for part in (equal, better))
    print(markdown_table(tabulate(equal, at_the_bar)), end="\n\n")
    print(markdown_table(tabulate(better, above)), end="\n\n")
    figures = {
        "false_kept": max(surely for surely, _ in at_the_bar),
        "power_2_points": min(surely for surely, _ in above),
        "kept_by_estimate": max(point for _, point in at_the_bar),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    sys.exit(main())
