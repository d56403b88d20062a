"""What the report, the card and Prefect say of the gate: a sentence and a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.core.terminal import Cells
from distill_tasks.scoring.statistics import QUALITY_NAMES

if TYPE_CHECKING:
    from distill_tasks.results.review import GateReport, Review, Standing


def say_review(review: Review) -> str:
    """Return the outcome, and the gate's reason where that says more."""
    gate = review.gate
    reason = "" if gate is None or gate.difference is None else f" {gate.reason}."
    outcome = str(review)
    return f"{outcome[0].upper()}{outcome[1:]}.{reason}"


def say_looks(gate: GateReport) -> str:
    """Return which look at the held-out rows it was, and when fresh ones are due; empty if none."""
    if gate.look is None:
        return ""
    said = "; ".join(filter(None, (str(gate.look), gate.look.renewal)))
    return f"{said[0].upper()}{said[1:]}."


def tabulate_gate(gate: GateReport) -> list[Cells]:
    """Return both models' figures; where none were compared, the answer with its reason."""
    version, champion = f"version {gate.version}", name_champion(gate)
    if gate.challenger is None or gate.champion is None:
        answer = "yes" if gate.promote else "no"
        return [{"version": str(gate.version), "may become champion": answer, "why": gate.reason}]
    ours, theirs = list_standing(gate.challenger, gate), list_standing(gate.champion, gate)
    return [
        {"held-out": name, version: cell, champion: theirs[name]} for name, cell in ours.items()
    ]


def name_champion(gate: GateReport) -> str:
    """Return what the column of the champion is called."""
    return f"champion, version {gate.compared_to}"


def list_standing(standing: Standing, gate: GateReport) -> Cells:
    """Return the figures of a model that the gate measured, by name."""
    return {
        QUALITY_NAMES[gate.metric]: f"{standing.quality:.4f}",
        QUALITY_NAMES["macro_f1"]: f"{standing.macro_f1:.4f}",
        "p50 ms": f"{standing.p50_ms:.3g}",
        "p95 ms": f"{standing.p95_ms:.3g}",
    }
