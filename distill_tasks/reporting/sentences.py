"""The sentences of the report, each written once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.core.errors import shortlist
from distill_tasks.reporting.promises import say_promises, say_stability, say_ties, say_words
from distill_tasks.reporting.rows import list_classes
from distill_tasks.results.references import TEACHER

if TYPE_CHECKING:
    from distill_tasks.measuring.footprint import Footprint
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.outcomes import Judgement
    from distill_tasks.results.selection import Candidate
    from distill_tasks.scoring.fidelity import ErrorGroup, Example, Panel

ERRORS = {
    "new": "New: the teacher had these right",
    "inherited": "Inherited: the teacher is wrong too",
    "fixed": "Fixed: the teacher had these wrong",
    "disagreements": "Disagreements with the teacher",
}
"""Titles of the kinds of errors."""


def headline(findings: Findings) -> str:
    """Return what speaks against the choice, then the chosen student's quality and speed."""
    choice = findings.selection.choice
    if choice is None:
        return findings.selection.why_none
    first = [say_words(findings), say_promises(findings), _say_choice(findings, choice)]
    return " ".join(filter(None, first))


def _say_choice(findings: Findings, choice: Candidate) -> str:
    kept, faster = _say_kept(findings, choice), findings.speed_up(choice.latency)
    if faster is None:
        return f"{choice.name} {kept}."
    return f"{choice.name} {kept} and is {faster.faster} (text in, label out)."


def _say_kept(findings: Findings, choice: Candidate) -> str:
    """Return the share of the teacher's quality that a student keeps, of macro F1 too if needed.

    Without gold it is agreement.
    """
    figures = findings.held_out.candidates[choice.name].figures
    kept = figures.get("fidelity/retention")
    if kept is None:
        agreed = 100 * figures["fidelity/agreement"].value
        return f"agrees with the teacher on {agreed:.1f} % of held-out rows"
    share = f"keeps {100 * kept.value:.1f} % of the teacher's held-out {findings.metric}"
    teacher = findings.held_out.models[TEACHER].values["quality/macro_f1"]
    if not findings.needs_macro_f1 or teacher == 0:
        return share
    kept_macro_f1 = 100 * figures["quality/macro_f1"].value / teacher
    return f"{share} ({kept_macro_f1:.1f} % of its macro F1)"


def say_classes(findings: Findings, choice: Candidate) -> list[str]:
    """Return the class with the largest loss against the teacher, and classes never predicted.

    Classes of a few rows count too, with their number; without gold nothing is known.
    """
    rows = [row for row in list_classes(findings, choice) if row.less_teacher is not None]
    if not rows:
        return []
    lines, never = [], [f"{row.name} ({row.rows} rows)" for row in rows if row.never_predicted]
    if never:
        lines.append(f"It never predicts {shortlist(never)}")
    worst = min(rows, key=lambda row: (row.less_teacher, row.f1))
    if worst.less_teacher is not None and worst.less_teacher < 0:
        lines.append(
            f"Class that suffers most: {worst.name} ({worst.rows} rows), F1 {worst.f1:.3f}, the "
            f"teacher's {worst.teacher_f1:.3f}, {worst.less_teacher:+.3f}"
        )
    else:
        lines.append("No class suffers: its F1 of each is the teacher's or higher")
    return lines


def explain_columns(findings: Findings) -> str:
    """Return which models the columns compare that every table of a run has."""
    metric = findings.metric
    return (
        "Held-out figures, of several seeds their mean; the choice was made on validation. "
        f"Verdict and against control: {metric} of a finalist minus {metric} of its control, that "
        "is, of the same student trained on gold alone (its row ends in -on-gold), in points. "
        "Speed-up: latency of the teacher divided by that of the model, p50 by p50 and p95 by p95."
    )


def explain_report_columns(findings: Findings) -> str:
    """Return the same for the report, which may time the teacher's best exported form too."""
    explained, best = explain_columns(findings), findings.best_teacher_variant
    if best is None:
        return explained
    return (
        f"{explained} p50 against {best.name}: the same over the fastest exported form of the "
        "teacher that is as good on validation, within "
        f"{100 * findings.config.registry.allowed_drop:g} points."
    )


def say_verdict(judgement: Judgement) -> str:
    """Return a verdict with its reason, the distillation ratio and its flags."""
    ratio = judgement.distillation_ratio
    share = (
        f" It covers {100 * ratio.value:.0f} % [{100 * ratio.low:.0f}, {100 * ratio.high:.0f}] of "
        "the way from the control to the teacher."
        if ratio
        else ""
    )
    flags = "".join(f" Mind: {flag}." for flag in judgement.flags)
    return f"{judgement.verdict}: {judgement.reason}.{share}{flags}"


def say_front(findings: Findings) -> str:
    """Return the candidates on the front and how certain that is."""
    selection, band = findings.selection, findings.latencies.band
    ties = (
        f"p95 latencies within {100 * band:.1f} % of each other count as ties: by so much at most "
        "did the same model, measured twice in this run, differ from itself."
    )
    parts = [f"On the front: {', '.join(selection.front)}.", ties]
    named = {
        "Behind the front, but on so few validation rows they may belong on it": (
            selection.undecided
        ),
        "Would leave it if their quality were at the low end of its interval": selection.leaving,
        "Would join it if their quality were at the high end of its interval": selection.joining,
    }
    parts += [f"{what}: {', '.join(names)}." for what, names in named.items() if names]
    if not selection.leaving and not selection.joining:
        parts.append("No candidate would join or leave it at either end of its interval.")
    parts += filter(None, [say_ties(findings), say_stability(findings)])
    return " ".join(parts)


def say_halving(findings: Findings) -> str:
    """Return which students halving stopped and the time saved; empty if it was off."""
    halving = findings.halving
    if not halving.students:
        return ""
    if not halving.stops:
        return f"Halving compared {halving.students} students on the way and stopped none."
    return (
        f"Halving stopped {len(halving.stops)} of {halving.students} students on the way, which "
        f"saved about {100 * halving.saved_share:.0f} % of their training time "
        f"({sum(stop.saved_s for stop in halving.stops):.0f} s)."
    )


def say_objective(findings: Findings) -> str:
    """Return the temperature and α of the run, and why these."""
    objective = findings.tuning.objective
    temperature, alpha = objective.temperature, objective.alpha
    return f"Temperature {temperature:g}, α {alpha:g}: {findings.tuning.reason}."


def say_cost(findings: Findings) -> str:
    """Return what the chosen student's answers cost; empty where that is not known."""
    cost = findings.costs.get(findings.selection.chosen or "")
    return f"Of {findings.selection.chosen}, {cost}." if cost else ""


def say_times(findings: Findings) -> str:
    """Return what teacher, labelling and each training took."""
    seconds = {"teacher": findings.teacher.seconds, "labelling": findings.labels.seconds}
    trained = (s for s in findings.students if s.candidate == s.student)
    seconds |= {student.name: student.seconds for student in trained}
    return "Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()) + "."


def say_footprint(footprint: Footprint) -> str:
    """Return the memory, disk and start-up time of serving."""
    return (
        f"first answer after {footprint.cold_start_s:.2f} s, {footprint.resident_mb:.0f} MB of "
        f"memory, {footprint.installed_mb:.0f} MB of packages"
    )


def say_errors(panel: Panel) -> list[str]:
    """Return how many errors there are of each kind, and the worst slice."""
    lines = [_say_group(kind, group) for kind, group in panel.errors.items()]
    worst = say_worst_slice(panel)
    return [*lines, worst] if worst else lines


def say_worst_slice(panel: Panel) -> str:
    """Return the slice that loses most against the teacher; empty where none is large enough."""
    worst, gap = panel.worst, panel.worst_difference
    if worst is None or gap is None:
        return ""
    return (
        f"Worst slice: {worst.kind} {worst.name}, {worst.rows} rows: student "
        f"{100 * worst.student:.1f} %, teacher {100 * worst.teacher:.1f} %, the student's less "
        f"the teacher's {100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, "
        f"{100 * gap.high:+.1f}]"
    )


def _say_group(kind: str, group: ErrorGroup) -> str:
    most = ", ".join(
        f"{pair.right or 'none'} → {pair.said or 'none'} ({pair.rows})" for pair in group.confusions
    )
    return f"{ERRORS[kind]}: {group.rows} rows" + (f"; most often {most}" if most else "")


def say_example(example: Example) -> str:
    """Return one row that the student gets wrong, with all labels given to it."""
    gold = "" if example.gold is None else f"gold {example.gold or 'none'}, "
    return (
        f"{gold}teacher {example.teacher or 'none'}, student {example.student or 'none'} "
        f"({100 * example.confidence:.0f} % sure): {example.text}"
    )
