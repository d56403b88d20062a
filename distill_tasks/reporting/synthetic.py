"""What the report says of synthetic rows: the chosen student with and without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.core.notes import Note, Rank
from distill_tasks.scoring.verdicts import Verdict

if TYPE_CHECKING:
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.outcomes import Ablation

ADVICE = {
    Verdict.BEATS: "they surely help",
    Verdict.INCONCLUSIVE: "so few held-out rows do not tell whether they help",
    Verdict.NO_BEATS: "they do not help: leave data.synthetic out",
}
"""What follows from the verdict on a student with synthetic rows against itself without them."""


def note_synthetic(findings: Findings) -> list[Note]:
    """Return what synthetic rows bring on real held-out rows; nothing where there are none."""
    found = findings.ablation
    if found is None:
        return []
    useless = found.comparison is not None and found.comparison.verdict is Verdict.NO_BEATS
    return [Note(Rank.ACT if useless else Rank.KNOW, say_synthetic(found, findings.metric))]


def say_synthetic(found: Ablation, metric: str) -> str:
    """Return the quality of a student with and without synthetic rows, and their difference."""
    share = f"the teacher gives {found.as_intended:,} of them the class they were written for"
    text = (
        f"{found.rows:,} synthetic rows: {found.student} has {metric} {found.whole.quality} on "
        f"real held-out rows with them, {found.ablated.quality} without"
    )
    if found.comparison is not None:
        difference, verdict = found.comparison.difference.points, found.comparison.verdict
        text += f", {difference} ({verdict}): {ADVICE[verdict]}"
    return f"{text}; {share}"
