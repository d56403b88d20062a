"""What is said of the teacher before any student is trained, and its answers to look at."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.core.errors import shortlist
from distill_tasks.core.markup import as_cell
from distill_tasks.core.notes import Note, Rank
from distill_tasks.llm.label_prior import SURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill_tasks.llm.label_prior import PriorChoice
    from distill_tasks.results.audit import Audit, Censored, SelfAgreement
    from distill_tasks.results.suspicious import SuspiciousAnswer
    from distill_tasks.scoring.intervals import Figure

ANSWERS = "review/teacher_answers.csv"
COLUMNS = (
    *("key", "split", "text", "gold", "teacher", "confidence", "margin", "reasons"),
    *("near_text", "near_teacher"),
)
WEAKEST, MOST_CONFUSED = 3, 3
FEW_CONFIDENCES = 20
"""Different confidences up to which it is said that a teacher grades its answers coarsely."""


def say_audit(audit: Audit) -> list[str]:
    """Return the audit in a few lines without full stops."""
    lines = [_say_accuracy(audit)]
    if audit.per_class:
        lines.append(_say_classes(audit))
    if audit.ece_before is not None and audit.ece_after is not None:
        lines.append(
            f"calibration: ECE {audit.ece_before.value:.3f} as it answers, "
            f"{audit.ece_after.value:.3f} with the fitted temperature {audit.temperature:.2f}"
        )
    if audit.prior is not None:
        lines.append(say_prior(audit.prior))
    if audit.censored is not None and audit.censored.mean:
        lines.append(_say_censored(audit.censored))
    if audit.confidences <= min(FEW_CONFIDENCES, audit.rows / 2):
        values = f"only {audit.confidences}"
        lines.append(f"different confidences among {audit.rows:,} answers: {values}")
    if audit.self_agreement is not None:
        lines.append(say_self_agreement(audit.self_agreement))
    if audit.suspicious_weight < 1:
        lines.append(_say_weight(audit))
    return lines


def say_prior(choice: PriorChoice) -> str:
    """Return whether answers are divided by the label prior, and what that does to their NLL."""
    change, half = choice.divided_nll - choice.plain_nll, SURE * choice.standard_error
    change_ends = f"{change:+.3f} [{change - half:+.3f}, {change + half:+.3f}]"
    nll = f"the NLL of {choice.rows:,} rows of validation"
    values = f"{choice.divided_nll:.3f} instead of {choice.plain_nll:.3f} ({change_ends})"
    if choice.divide:
        return f"its answers are divided by what it answers on average: {nll} is {values}"
    return f"its answers are not divided by what it answers on average: {nll} would be {values}"


def say_self_agreement(found: SelfAgreement) -> str:
    """Return how often the teacher agrees with itself, and what that means for students."""
    share = found.share
    ends = f"[{100 * share.low:.0f}, {100 * share.high:.0f}]"
    return (
        f"the teacher agrees with itself in {100 * share.value:.0f} % of {share.rows:,} rows asked "
        f"twice {ends}: no student can be expected to agree with it in more than "
        f"{100 * found.highest_agreement:.0f} %"
    )


def note_self_agreement(audit: Audit) -> list[Note]:
    """Return a note on how often the teacher agrees with itself, where that is known."""
    found = audit.self_agreement
    return [] if found is None else [Note(Rank.KNOW, say_self_agreement(found))]


def note_suspicious(answers: Sequence[SuspiciousAnswer], audit: Audit) -> list[Note]:
    """Return a note on the answers to look at, where they are listed, and how much they count."""
    if not answers:
        return []
    listed = f"{ANSWERS} of this run lists {len(answers):,} answers of the teacher to look at"
    learned = "students learn from them all" if audit.suspicious_weight == 1 else _say_weight(audit)
    return [Note(Rank.FINE, f"{listed}, the most suspicious first; {learned}")]


def write_answers(answers: Sequence[SuspiciousAnswer], folder: Path) -> None:
    """Write the suspicious answers as a table, the most suspicious first."""
    path = folder / ANSWERS
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # spreadsheets know it by that
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in answers:
            text, gold, teacher, near_text, near_teacher = map(
                as_cell, (one.text, one.gold, one.teacher, one.near_text, one.near_teacher)
            )
            figures = [f"{one.confidence:.4f}", f"{one.margin:.4f}"]
            said = [one.key, one.split, text, gold, teacher, *figures, "; ".join(one.reasons)]
            writer.writerow([*said, near_text, near_teacher])


def _say_accuracy(audit: Audit) -> str:
    if audit.accuracy is None:
        return f"no gold in validation ({audit.rows:,} rows), so its accuracy is not known"
    words = audit.words_on_gold
    beside = "" if words is None else f"; words on gold: {_say_share(words)}"
    return f"accuracy {_say_share(audit.accuracy)} on {audit.rows:,} rows of validation{beside}"


def _say_share(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _say_weight(audit: Audit) -> str:
    rows = f"suspicious answers to {audit.suspicious:,} training rows"
    return f"{rows} count {audit.suspicious_weight:g} times the others (loss.suspicious_weight)"


def _say_censored(found: Censored) -> str:
    return (
        "probability on classes beyond the list that the endpoint gives: "
        f"{100 * found.mean:.1f} % on average, {100 * found.p95:.1f} % at the 95th percentile"
    )


def _say_classes(audit: Audit) -> str:
    """Return the classes with the lowest F1, and what is most often taken for what."""
    scored = sorted(
        (row for row in audit.per_class if row["f1"] is not None), key=lambda r: r["f1"]
    )
    weakest = shortlist(
        f"{row['class']} {row['f1']:.2f} ({row['rows']} rows)" for row in scored[:WEAKEST]
    )
    confused = shortlist(
        f"{one.right} as {one.said} ({one.rows})" for one in audit.confusions[:MOST_CONFUSED]
    )
    return f"lowest F1: {weakest}" + (f"; most often taken: {confused}" if confused else "")
