"""Answers of the teacher that should be looked at before students learn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_tasks.data.corrections import row_keys
from distill_tasks.problems.classification import name_labels
from distill_tasks.results.doubts import AGAINST_GOLD, NEAR_REPEAT, TIE

if TYPE_CHECKING:
    from distill_tasks.problems.classification import Decisions
    from distill_tasks.results.doubts import AnsweredRows
    from distill_tasks.results.run import OpenRun

MOST_ROWS = 500


@dataclass(frozen=True)
class SuspiciousAnswer:
    """An answer of the teacher, and why it may be wrong."""

    key: str
    split: str
    text: str
    gold: str
    """Empty where there is none."""
    teacher: str
    confidence: float
    margin: float
    """The lead of its answer over the next one, as a probability."""
    reasons: dict[str, float]
    """How suspicious it is, from 0 to 1, by reason, the worst reason first."""
    near_text: str = ""
    """Nearly the same text, which it answers otherwise."""
    near_teacher: str = ""


def find_suspicious(run: OpenRun) -> list[SuspiciousAnswer]:
    """Return the teacher's suspicious answers, the most suspicious first, at most 500.

    Rows with more reasons come first, then by reason in the order of `AnsweredRows.reasons`, then
    by how much.
    """
    reasons = run.answered.reasons
    order = sorted(reasons, key=lambda row: (*_rank(reasons[row]), row))[:MOST_ROWS]
    return [_describe(run.answered, row) for row in order]


def _rank(reasons: dict[str, float]) -> tuple[int, int, float]:
    worst = next(iter(reasons))
    return -len(reasons), (AGAINST_GOLD, NEAR_REPEAT, TIE).index(worst), -reasons[worst]


def _describe(rows: AnsweredRows, row: int) -> SuspiciousAnswer:
    """Return one answer with its reasons."""
    _, other = rows.near.get(row, (0.0, None))

    def name(decisions: Decisions, row: int) -> str:
        return name_labels(decisions[row : row + 1], rows.corpus.classes)[0]

    return SuspiciousAnswer(
        key=row_keys([rows.texts[row]])[0],
        split=rows.places[row][0],
        text=rows.texts[row],
        gold=name(rows.gold, row) if rows.known[row] else "",
        teacher=name(rows.decisions, row),
        confidence=float(rows.sure[row]),
        margin=float(rows.margin[row]),
        reasons=rows.reasons[row],
        near_text="" if other is None else rows.texts[other],
        near_teacher="" if other is None else name(rows.decisions, other),
    )
