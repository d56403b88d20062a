"""The first screen of the page: which student, how good, how fast, what it gets wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_tasks.core.wording import say_speed
from distill_tasks.reporting.promises import say_promise, say_words
from distill_tasks.reporting.sentences import (
    say_classes,
    say_cost,
    say_errors,
    say_footprint,
)
from distill_tasks.results.references import TEACHER

if TYPE_CHECKING:
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.outcomes import Judgement
    from distill_tasks.results.selection import Candidate
    from distill_tasks.scoring.fidelity import Panel


@dataclass(frozen=True)
class Card:
    """One box of the first screen."""

    title: str
    value: str
    """What stands there in large letters."""
    lines: list[str]
    aside: str = ""
    verdict: str = ""
    """The style of the value, where that is a verdict."""


def fill_cards(findings: Findings) -> list[Card]:
    """Return the cards of the chosen student; none where nothing was chosen."""
    choice, panel = findings.selection.choice, findings.panel
    if choice is None or panel is None:
        return []
    return [
        _show_promises(findings, choice),
        _show_student(choice, findings.selection.reasons[choice.name]),
        _show_quality(findings, choice),
        _show_verdict(findings.judgement),
        _show_speed(findings, choice),
        _show_errors(findings, choice, panel),
    ]


def _show_promises(findings: Findings, choice: Candidate) -> Card:
    tests = findings.proof.promises.get(choice.name, [])
    words = say_words(findings)
    lines = [*map(say_promise, tests), *([words] if words else [])]
    if not tests:
        nothing = "nothing was promised: see select.min_retention"
        return Card("Promises on held-out", "–", [nothing, *lines])
    return Card("Promises on held-out", "kept", lines, aside=f"{len(tests)} of {len(tests)}")


def _show_student(choice: Candidate, reason: str) -> Card:
    student = choice.student
    lines = [
        f"{student.parameters:,} parameters, {student.disk_mb:.1f} MB",
        f"seed {student.seed}",
        *([str(choice.parity)] if choice.parity else []),
        reason,
    ]
    return Card("The student", choice.name, lines)


def _show_quality(findings: Findings, choice: Candidate) -> Card:
    card, teacher = findings.held_out.candidates[choice.name], findings.held_out.models[TEACHER]
    control = findings.held_out.on_gold.get(choice.student.student)
    lines = [f"teacher {teacher.quality}"]
    if findings.needs_macro_f1:
        macro_f1, theirs = (one.figures["quality/macro_f1"] for one in (card, teacher))
        lines.insert(0, f"macro F1 {macro_f1}, the teacher's {theirs}")
    if control is not None:
        lines.append(f"the same student on gold alone {control.quality}")
    if card.spread:
        low, high = card.spread.get(f"quality/{card.metric}", (0.0, 0.0))
        lines.append(f"seeds from {low:.4f} to {high:.4f}")
    return Card(
        f"Held-out {findings.metric}",
        f"{100 * card.quality.value:.2f} %",
        lines,
        aside=f"[{100 * card.quality.low:.2f}, {100 * card.quality.high:.2f}]",
    )


def _show_verdict(judgement: Judgement | None) -> Card:
    title = "Did the teacher help?"
    if judgement is None:
        return Card(title, "–", [])
    verdict = str(judgement.verdict)
    style = verdict.replace(" ", "-").lower()
    return Card(title, verdict, [judgement.reason, *judgement.flags], verdict=style)


def _show_speed(findings: Findings, choice: Candidate) -> Card:
    latency, cost = choice.latency, say_cost(findings)
    faster = findings.speed_up(latency)
    quicker, best = findings.speed_up_over_variant(latency), findings.best_teacher_variant
    lines = [
        f"p50 {latency.p50_ms:.3g} ms, p95 {latency.p95_ms:.3g} ms",
        *([f"{quicker.faster} than {best.name}"] if quicker and best else []),
        "text in, label out, one text at a time",
        f"{latency.device}, {latency.threads} thread(s)",
        say_footprint(choice.footprint),
        *([cost] if cost else []),
    ]
    return Card(
        "Speed",
        f"{say_speed(faster.p50)} · {say_speed(faster.p95)}" if faster else "–",
        lines,
        aside="faster than the teacher, p50 · p95" if faster else "the teacher has no weights here",
    )


def _show_errors(findings: Findings, choice: Candidate, panel: Panel) -> Card:
    title, kind = (
        ("Wrong where the teacher was right", "new")
        if panel.has_gold
        else ("Disagreements", "disagreements")
    )
    value, card = str(panel.errors[kind].rows), findings.held_out.candidates[choice.name]
    lines = [*say_classes(findings, choice), *say_errors(panel)]
    return Card(title, value, lines, aside=f"of {card.quality.rows:,} rows")
