"""The fidelity panel: where a student differs from its teacher, for whom, and on which texts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import Decisions, name_labels
from distill_tasks.scoring.intervals import Figure, estimate
from distill_tasks.scoring.scorecard import EvalSplit, Predictions
from distill_tasks.scoring.statistics import equal_mass_bins, mean

Hits = NDArray[np.bool_]
"""Which rows (rows,) a model got right; without gold, where it agrees with the teacher."""

EXAMPLES = 10
CONFUSIONS = 5
EXAMPLE_CHARACTERS = 300
SMALLEST_SLICE_ROWS = 20
"""A slice with fewer rows is never called the worst."""
LENGTH_BUCKETS = 4


@dataclass(frozen=True)
class Example:
    """One text with its gold label and what teacher and student predicted."""

    row: int
    text: str
    gold: str | None
    teacher: str
    student: str
    confidence: float
    """The student's."""


@dataclass(frozen=True)
class Confusion:
    """Rows of one label that were predicted as another."""

    right: str
    said: str
    """The label predicted; the field has its name in stores of before."""
    rows: int


@dataclass(frozen=True)
class ErrorGroup:
    """Rows of one kind of error."""

    rows: int
    confusions: list[Confusion]
    """Which label was predicted for which, the most frequent first."""
    examples: list[Example]
    """The rows on which the student was most confident."""


@dataclass(frozen=True)
class Slice:
    """The share that student and teacher got right among some rows."""

    kind: str
    """What the rows have in common: class, length, or slice for the user's slice column."""
    name: str
    rows: int
    student: float
    teacher: float

    @property
    def difference(self) -> float:
        """The student's share minus the teacher's."""
        return self.student - self.teacher


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of similar confidence: how sure they were, and how many were right."""

    confidence: float
    right: float
    rows: int


@dataclass(frozen=True)
class Panel:
    """Where a student differs from its teacher on one split."""

    has_gold: bool
    confusion: list[list[int]]
    """Rows by the teacher's class and the student's. Of several labels: for each label the rows
    given it by both, by the teacher alone, by the student alone, and by neither."""
    slices: list[Slice]
    worst: Slice | None
    worst_difference: Figure | None
    errors: dict[str, ErrorGroup]
    """By kind: inherited (the teacher is wrong too), new and fixed; or disagreements."""
    reliability: dict[str, list[ReliabilityBin]]
    """Of teacher and student; empty without gold."""


def draw_panel(eval_split: EvalSplit, student: Predictions) -> Panel:
    """Compare a student's predictions with the teacher's on the same rows."""
    predicted, by_teacher, truth = (
        eval_split.decide(student),
        eval_split.decide(eval_split.teacher),
        eval_split.truth,
    )
    right, teacher_right = (predicted == truth).all(axis=1), (by_teacher == truth).all(axis=1)
    slices = [
        (Slice(kind, name, int(rows.sum()), _share(right[rows]), _share(teacher_right[rows])), rows)
        for kind, name, rows in _slice(eval_split, truth)
        if rows.any()
    ]
    worst, difference = None, None
    if large := [(one, rows) for one, rows in slices if one.rows >= SMALLEST_SLICE_ROWS]:
        worst, rows = min(large, key=lambda pair: (pair[0].difference, pair[0].student))
        gap = mean(right[rows].astype(np.float32) - teacher_right[rows])
        difference = estimate({"gap": gap}, worst.rows, 0)["gap"]
    return Panel(
        has_gold=eval_split.split.has_gold,
        confusion=_confuse(by_teacher, predicted, eval_split),
        slices=[one for one, _ in slices],
        worst=worst,
        worst_difference=difference,
        errors=_split_errors(eval_split, student, right, teacher_right),
        reliability={}
        if eval_split.gold is None
        else {
            "teacher": _bin_confidence(eval_split, eval_split.teacher, teacher_right),
            "student": _bin_confidence(eval_split, student, right),
        },
    )


def _slice(eval_split: EvalSplit, truth: Decisions) -> Iterator[tuple[str, str, Hits]]:
    """Yield (kind, name, rows) of every slice: by class, by length, by the user's column."""
    for number, name in enumerate(eval_split.classes):
        yield "class", name, truth[:, number]
    words = np.array([len(text.split()) for text in eval_split.split.texts])
    edges = np.unique(np.quantile(words, np.linspace(0, 1, LENGTH_BUCKETS + 1)).round())
    for low, high in itertools.pairwise(edges):
        last = high == edges[-1]
        inside = (words >= low) & ((words <= high) if last else (words < high))
        yield "length", f"{low:.0f} to {high if last else high - 1:.0f} words", inside
    if eval_split.split.slices is not None:
        values = np.array(eval_split.split.slices)
        for value in sorted(set(eval_split.split.slices)):
            yield "slice", value, values == value


def _confuse(by_teacher: Decisions, predicted: Decisions, eval_split: EvalSplit) -> list[list[int]]:
    if eval_split.problem == "single_label":
        counts: list[list[int]] = (
            by_teacher.astype(np.int64).T @ predicted.astype(np.int64)
        ).tolist()
        return counts
    cells = (
        by_teacher & predicted,
        by_teacher & ~predicted,
        ~by_teacher & predicted,
        ~by_teacher & ~predicted,
    )
    by_label: list[list[int]] = np.stack([cell.sum(axis=0) for cell in cells], axis=1).tolist()
    return by_label


def _split_errors(
    eval_split: EvalSplit, student: Predictions, right: Hits, teacher_right: Hits
) -> dict[str, ErrorGroup]:
    kinds = {
        "new": ~right & teacher_right,
        "inherited": ~right & ~teacher_right,
        "fixed": right & ~teacher_right,
    }
    if eval_split.gold is None:
        kinds = {"disagreements": ~right}
    sure = student.calibration.confidence(student.logits, eval_split.problem)
    return {
        kind: ErrorGroup(
            rows=int(rows.sum()),
            confusions=count_confusions(
                eval_split, eval_split.teacher if kind == "fixed" else student, rows
            ),
            examples=_show(eval_split, student, rows, sure),
        )
        for kind, rows in kinds.items()
    }


def count_confusions(eval_split: EvalSplit, wrong: Predictions, rows: Hits) -> list[Confusion]:
    """Return which label the wrong model predicted for which, the most frequent first."""
    right, predicted = (
        name_labels(matrix[rows], eval_split.classes)
        for matrix in (eval_split.truth, eval_split.decide(wrong))
    )
    counted = Counter(zip(right, predicted, strict=True)).most_common(CONFUSIONS)
    return [Confusion(*pair, count) for pair, count in counted]


def _show(
    eval_split: EvalSplit, student: Predictions, rows: Hits, sure: NDArray[np.float64]
) -> list[Example]:
    """Return the rows on which the student was most confident."""
    numbers = np.flatnonzero(rows)
    shown = numbers[np.argsort(-sure[numbers], kind="stable")][:EXAMPLES]
    predicted, by_teacher = (
        name_labels(eval_split.decide(one)[shown], eval_split.classes)
        for one in (student, eval_split.teacher)
    )
    gold = (
        [None] * len(shown)
        if eval_split.gold is None
        else name_labels(eval_split.gold[shown], eval_split.classes)
    )
    return [
        Example(
            row=int(row),
            text=_shorten(eval_split.split.texts[row]),
            gold=gold[place],
            teacher=by_teacher[place],
            student=predicted[place],
            confidence=float(sure[row]),
        )
        for place, row in enumerate(shown)
    ]


def _share(hits: Hits) -> float:
    return float(hits.mean())


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXAMPLE_CHARACTERS else f"{line[: EXAMPLE_CHARACTERS - 1]}…"


def _bin_confidence(
    eval_split: EvalSplit, predictions: Predictions, right: Hits
) -> list[ReliabilityBin]:
    sure = predictions.calibration.confidence(predictions.logits, eval_split.problem)
    return [
        ReliabilityBin(float(sure[rows].mean()), float(right[rows].mean()), len(rows))
        for rows in equal_mass_bins(sure)
        if len(rows)
    ]
