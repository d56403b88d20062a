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
from distill_tasks.scoring.scorecard import Answered, Exam
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
    """One text with what was right and what was said of it."""

    row: int
    text: str
    gold: str | None
    teacher: str
    student: str
    confidence: float
    """The student's."""


@dataclass(frozen=True)
class Confusion:
    """Rows that one label was right for, and another one said of."""

    right: str
    said: str
    rows: int


@dataclass(frozen=True)
class ErrorGroup:
    """Rows of one kind of error."""

    rows: int
    confusions: list[Confusion]
    """What was taken for what, the most frequent first."""
    examples: list[Example]
    """The rows of which the student was surest, to be read."""


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
        """The student's share less the teacher's."""
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
    """Rows by the teacher's class and the student's; of several labels, rows of each label that
    both, the teacher alone, the student alone and neither gave it to."""
    slices: list[Slice]
    worst: Slice | None
    worst_difference: Figure | None
    errors: dict[str, ErrorGroup]
    """By kind: inherited (the teacher is wrong too), new and fixed; or disagreements."""
    reliability: dict[str, list[ReliabilityBin]]
    """Of teacher and student; empty without gold."""


def draw_panel(exam: Exam, student: Answered) -> Panel:
    """Compare what a student said with what the teacher said of the same rows."""
    said, taught, truth = exam.decide(student), exam.decide(exam.teacher), exam.truth
    right, teacher_right = (said == truth).all(axis=1), (taught == truth).all(axis=1)
    slices = [
        (Slice(kind, name, int(rows.sum()), _share(right[rows]), _share(teacher_right[rows])), rows)
        for kind, name, rows in _slice(exam, truth)
        if rows.any()
    ]
    worst, difference = None, None
    if large := [(one, rows) for one, rows in slices if one.rows >= SMALLEST_SLICE_ROWS]:
        worst, rows = min(large, key=lambda pair: (pair[0].difference, pair[0].student))
        gap = mean(right[rows].astype(np.float32) - teacher_right[rows])
        difference = estimate({"gap": gap}, worst.rows, 0)["gap"]
    return Panel(
        has_gold=exam.split.has_gold,
        confusion=_confuse(taught, said, exam),
        slices=[one for one, _ in slices],
        worst=worst,
        worst_difference=difference,
        errors=_split_errors(exam, student, right, teacher_right),
        reliability={}
        if exam.gold is None
        else {
            "teacher": _bin_confidence(exam, exam.teacher, teacher_right),
            "student": _bin_confidence(exam, student, right),
        },
    )


def _slice(exam: Exam, truth: Decisions) -> Iterator[tuple[str, str, Hits]]:
    """Yield (kind, name, rows) of every slice: by class, by length, by the user's column."""
    for number, name in enumerate(exam.classes):
        yield "class", name, truth[:, number]
    words = np.array([len(text.split()) for text in exam.split.texts])
    edges = np.unique(np.quantile(words, np.linspace(0, 1, LENGTH_BUCKETS + 1)).round())
    for low, high in itertools.pairwise(edges):
        last = high == edges[-1]
        inside = (words >= low) & ((words <= high) if last else (words < high))
        yield "length", f"{low:.0f} to {high if last else high - 1:.0f} words", inside
    if exam.split.slices is not None:
        values = np.array(exam.split.slices)
        for value in sorted(set(exam.split.slices)):
            yield "slice", value, values == value


def _confuse(taught: Decisions, said: Decisions, exam: Exam) -> list[list[int]]:
    if exam.problem == "single_label":
        counts: list[list[int]] = (taught.astype(np.int64).T @ said.astype(np.int64)).tolist()
        return counts
    cells = (taught & said, taught & ~said, ~taught & said, ~taught & ~said)
    by_label: list[list[int]] = np.stack([cell.sum(axis=0) for cell in cells], axis=1).tolist()
    return by_label


def _split_errors(
    exam: Exam, student: Answered, right: Hits, teacher_right: Hits
) -> dict[str, ErrorGroup]:
    kinds = {
        "new": ~right & teacher_right,
        "inherited": ~right & ~teacher_right,
        "fixed": right & ~teacher_right,
    }
    if exam.gold is None:
        kinds = {"disagreements": ~right}
    sure = student.calibration.confidence(student.logits, exam.problem)
    return {
        kind: ErrorGroup(
            rows=int(rows.sum()),
            confusions=_count_confusions(exam, exam.teacher if kind == "fixed" else student, rows),
            examples=_show(exam, student, rows, sure),
        )
        for kind, rows in kinds.items()
    }


def _count_confusions(exam: Exam, wrong: Answered, rows: Hits) -> list[Confusion]:
    """Return what the one who is wrong took for what."""
    right, said = (
        name_labels(matrix[rows], exam.classes) for matrix in (exam.truth, exam.decide(wrong))
    )
    counted = Counter(zip(right, said, strict=True)).most_common(CONFUSIONS)
    return [Confusion(*pair, count) for pair, count in counted]


def _show(exam: Exam, student: Answered, rows: Hits, sure: NDArray[np.float64]) -> list[Example]:
    """Return the rows of which the student was surest, to be read."""
    numbers = np.flatnonzero(rows)
    shown = numbers[np.argsort(-sure[numbers], kind="stable")][:EXAMPLES]
    said, taught = (
        name_labels(exam.decide(one)[shown], exam.classes) for one in (student, exam.teacher)
    )
    gold = [None] * len(shown) if exam.gold is None else name_labels(exam.gold[shown], exam.classes)
    return [
        Example(
            row=int(row),
            text=_shorten(exam.split.texts[row]),
            gold=gold[place],
            teacher=taught[place],
            student=said[place],
            confidence=float(sure[row]),
        )
        for place, row in enumerate(shown)
    ]


def _share(hits: Hits) -> float:
    return float(hits.mean())


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXAMPLE_CHARACTERS else f"{line[: EXAMPLE_CHARACTERS - 1]}…"


def _bin_confidence(exam: Exam, answered: Answered, right: Hits) -> list[ReliabilityBin]:
    sure = answered.calibration.confidence(answered.logits, exam.problem)
    return [
        ReliabilityBin(float(sure[rows].mean()), float(right[rows].mean()), len(rows))
        for rows in equal_mass_bins(sure)
        if len(rows)
    ]
