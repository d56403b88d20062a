"""The table of rows to label again, which a person fills and `data.corrections` reads."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.core.markup import as_cell
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.corrections import CORRECTED, KEY, TEXT

if TYPE_CHECKING:
    from distill_tasks.results.findings import Findings

REVIEW = "review/label_errors.csv"
COLUMNS = (
    *(KEY, "split", TEXT, "gold", "teacher", "teacher_confidence", "student"),
    *("student_confidence", "disagreement", CORRECTED),
)


def write_review(findings: Findings, folder: Path) -> None:
    """Write the rows of which gold, teacher and student surely disagree, the surest first."""
    path = folder / REVIEW
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # spreadsheets know it by that
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for error in findings.label_errors:
            own = error.student_confidence
            text, gold, teacher, student = map(
                as_cell, (error.text, error.gold, error.teacher, error.student)
            )
            said = [teacher, f"{error.teacher_confidence:.4f}", student]
            sure = ["" if own is None else f"{own:.4f}", error.disagreement, ""]
            writer.writerow([error.key, error.split, text, gold, *said, *sure])


def note_label_errors(findings: Findings) -> list[Note]:
    """Return a note on rows whose gold may be wrong, and where they are listed."""
    rows = [error for error in findings.label_errors if error.against_gold]
    if not rows:
        return []
    doubted = f"the teacher is sure that the gold label of {len(rows):,} rows is another one"
    advice = f"{REVIEW} of this run lists them for data.corrections"
    return [Note(Rank.KNOW, f"{doubted}: {advice}")]
