"""All that one distillation found, and the sentences and tables that every report shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from distill_tasks.config import DistillConfig
from distill_tasks.core.markup import as_label
from distill_tasks.data.corpus import Corpus
from distill_tasks.measuring.cost import Cost, find_cost, say_price
from distill_tasks.measuring.footprint import Footprint
from distill_tasks.measuring.latency import Latency
from distill_tasks.reporting.front import Point, Role
from distill_tasks.results.evaluator import CONTROLS, TEACHER
from distill_tasks.results.grid import Grid
from distill_tasks.results.outcomes import (
    Halving,
    Judgement,
    Latencies,
    Proof,
    Scores,
    Tuning,
)
from distill_tasks.results.references import (
    CorpusReference,
    LabelsReference,
    StudentReference,
    TeacherReference,
)
from distill_tasks.results.run import Run
from distill_tasks.results.selection import Candidate, Selection
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.learning_curve import LearningCurve
from distill_tasks.scoring.scorecard import Scorecard
from distill_tasks.scoring.statistics import QUALITY_NAMES
from distill_tasks.students.controls import WORDS_ON_GOLD
from distill_tasks.students.formats import choose_variants

Row = dict[str, str]


@dataclass(frozen=True)
class Findings:
    """What one distillation found: what its reports are written from."""

    run: Run
    tuning: Tuning
    halving: Halving
    grid: Grid
    validation: Scores
    held_out: Scores
    latencies: Latencies
    selection: Selection
    proof: Proof
    curve: LearningCurve

    @property
    def config(self) -> DistillConfig:
        """What the user asked for."""
        return self.run.config

    @property
    def corpus(self) -> CorpusReference:
        """Where the rows lie."""
        return self.run.corpus

    @property
    def teacher(self) -> TeacherReference:
        """The teacher."""
        return self.run.teacher

    @property
    def labels(self) -> LabelsReference:
        """Where the teacher's answers lie."""
        return self.run.labels

    @property
    def students(self) -> list[StudentReference]:
        """All that was trained and exported."""
        return self.grid.students

    @cached_property
    def rows(self) -> Corpus:
        """The rows themselves."""
        return self.corpus.open()

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """What each candidate's answers cost; empty where no prices are given."""
        return _find_costs(self)

    @property
    def metric(self) -> str:
        """What quality means on held-out, for people."""
        return self._name_metric("held_out")

    @property
    def validation_metric(self) -> str:
        """What quality means on validation, where the choice is made."""
        return self._name_metric("validation")

    @property
    def judgement(self) -> Judgement | None:
        """The judgement of the chosen student."""
        return self.proof.judgements.get(self.selection.chosen or "")

    def _name_metric(self, split: str) -> str:
        has_gold = self.rows.splits[split].has_gold
        return QUALITY_NAMES[self.config.select.metric] if has_gold else "agreement"


def tabulate(findings: Findings) -> list[Row]:
    """Return every model as a row of text: teacher, finalists, other candidates, controls."""
    selection, held_out = findings.selection, findings.held_out
    finalists = [c for c in selection.candidates if c.name in held_out.candidates]
    others = [c for c in selection.candidates if c.name not in held_out.candidates]
    finalists.sort(key=lambda c: (-held_out.candidates[c.name].quality.value, c.latency.p95_ms))
    others.sort(key=lambda c: (-c.validation.quality.value, c.latency.p95_ms))
    rows = [_row(findings, TEACHER, held_out.models[TEACHER], "the model to be replaced")]
    for candidate in [*finalists, *others]:
        card = held_out.candidates.get(candidate.name)
        rows.append(
            _row(findings, candidate.name, card, selection.reasons[candidate.name], candidate)
        )
    for name, reason in findings.grid.failed.items():
        rows.append(_row(findings, name, None, f"left out: {reason}"))
    for name, reason in findings.halving.reasons.items():
        rows.append(_row(findings, name, None, reason))
    for name, card in held_out.on_gold.items():
        rows.append(_row(findings, f"{name}-on-gold", card, f"control: {name} without a teacher"))
    for name, control in CONTROLS.items():
        if name in held_out.models:
            rows.append(_row(findings, name, held_out.models[name], f"control: {control.about}"))
    return rows


def warn(findings: Findings) -> list[str]:
    """Return what the user should know before trusting the run."""
    warnings = [*findings.rows.findings, *findings.corpus.report.warnings]
    control = findings.held_out.models.get(WORDS_ON_GOLD)
    teacher = findings.held_out.models[TEACHER].quality
    if control is not None and control.quality.high >= teacher.low:
        warnings.append(
            f"the teacher ({teacher}) does not clearly beat words on gold "
            f"({control.quality}): distillation has little to give here"
        )
    for name, judgement in findings.proof.judgements.items():
        warnings += [f"{name}: {flag}" for flag in judgement.flags]
    for name, reason in findings.grid.failed.items():
        warnings.append(f"{name} was left out: {reason}")
    settings = findings.config.export
    torch = [student.name for student in findings.students if student.variant == "torch"]
    if settings.variants == "auto" and torch and not choose_variants(settings):
        warnings.append(
            "transformer students compete in torch alone: `pip install 'potstill[onnx]'` adds "
            "ONNX and int8"
        )
    return warnings


def headline(findings: Findings) -> str:
    """Return in one sentence which student, how good and how fast."""
    choice = findings.selection.choice
    if choice is None:
        return findings.selection.why_none
    card = findings.held_out.candidates[choice.name]
    kept = card.figures.get("fidelity/retention")
    agreed = 100 * card.figures["fidelity/agreement"].value
    share = (
        f"keeps {100 * kept.value:.1f} % of the teacher's held-out {findings.metric}"
        if kept
        else f"agrees with the teacher on {agreed:.1f} % of held-out rows"
    )
    faster = speed_up(findings, choice.latency)
    return f"{choice.name} {share}" + (
        f" and is {faster:.0f}× faster (p50, text in, label out)." if faster else "."
    )


def say_halving(findings: Findings) -> str:
    """Return whom halving stopped and what that saved; empty where nobody could be stopped."""
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


def speed_up(findings: Findings, latency: Latency) -> float | None:
    """Return how many times faster than the teacher; None where it has no weights here."""
    teacher = findings.latencies.by_name.get(TEACHER)
    return teacher.p50_ms / latency.p50_ms if teacher else None


def list_variants(findings: Findings) -> list[Row]:
    """Return what may be served of every student that has variants, as text."""
    rows = []
    several = {c.student.student for c in findings.selection.candidates if c.parity}
    for candidate in findings.selection.candidates:
        if candidate.student.student not in several:
            continue
        parity, reference = candidate.parity, candidate.student.student
        held_out = findings.proof.parities.get(candidate.name)
        faster = findings.latencies.by_name[reference].p50_ms / candidate.latency.p50_ms
        rows.append(
            {
                "model": candidate.name,
                "p50 ms": f"{candidate.latency.p50_ms:.3g}",
                "against torch": f"{faster:.2f}×",
                f"validation {findings.validation_metric}": parity.change.points if parity else "–",
                f"held-out {findings.metric}": held_out.change.points if held_out else "–",
                "other labels": f"{parity.flips} of {parity.answers:,}" if parity else "–",
                "largest logit difference": f"{parity.largest_logit_difference:.2g}"
                if parity
                else "–",
            }
        )
    return rows


def say_verdict(judgement: Judgement) -> str:
    """Return a verdict with its reason and what goes with it."""
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
    """Return who is on the front and how sure that is."""
    selection, band = findings.selection, findings.latencies.band
    ties = (
        f"p95 latencies within {100 * band:.1f} % of each other count as ties: by so much at most "
        "did the same model, measured twice in this run, differ from itself."
    )
    parts = [f"On the front: {', '.join(selection.front)}.", ties]
    if selection.undecided:
        parts.append(
            f"Behind it, where validation cannot rule them out: {', '.join(selection.undecided)}."
        )
    if selection.leaving:
        parts.append(
            f"At the low end of its interval would leave it: {', '.join(selection.leaving)}."
        )
    if selection.joining:
        parts.append(
            f"At the high end of its interval would join it: {', '.join(selection.joining)}."
        )
    if not selection.leaving and not selection.joining:
        parts.append("No candidate would join or leave it at either end of its interval.")
    return " ".join(parts)


def say_footprint(footprint: Footprint) -> str:
    """Return what serving takes beside time."""
    return (
        f"first answer after {footprint.cold_start_s:.2f} s, {footprint.resident_mb:.0f} MB of "
        f"memory, {footprint.installed_mb:.0f} MB of packages"
    )


def list_classes(findings: Findings, choice: Candidate) -> list[Row]:
    """Return precision, recall and F1 of the chosen student by class, beside the teacher's."""
    ours = findings.held_out.models[choice.name].per_class
    teacher = {row["class"]: row for row in findings.held_out.models[TEACHER].per_class}
    return [
        {
            "class": row["class"],
            "rows": str(row["rows"]) if row["rows"] else "0: absent from held-out",
            "precision": _share(row["precision"]),
            "recall": _share(row["recall"]),
            "F1": _share(row["f1"]),
            "teacher's F1": _share(teacher[row["class"]]["f1"]),
            "difference": _signed(row["f1"], teacher[row["class"]]["f1"]),
        }
        for row in ours
    ]


def list_calibration(findings: Findings, choice: Candidate) -> list[Row]:
    """Return the calibration of teacher and chosen student, with their fitted temperatures."""
    cards = {
        TEACHER: findings.held_out.models[TEACHER],
        choice.name: findings.held_out.models[choice.name],
    }
    return [
        {
            "model": name,
            "ECE": _figure(card, "calibration/ece"),
            "NLL": _figure(card, "calibration/nll"),
            "Brier": _figure(card, "calibration/brier"),
            "temperature": f"{card.temperature:.2f}",
            "answers": _figure(card, "answering/coverage"),
            "right of those": _figure(card, "answering/precision"),
        }
        for name, card in cards.items()
    ]


def list_points(findings: Findings) -> list[Point]:
    """Return every timed model as a point of the picture.

    Held-out is left out where it has no gold and validation has: the two are different figures.
    """
    points, alike = [], findings.metric == findings.validation_metric
    for name, latency in findings.latencies.by_name.items():
        if name == TEACHER:
            card, held_out = findings.validation.models[name], findings.held_out.models.get(name)
        elif name not in findings.validation.candidates:
            continue  # timed with its first seed, left out when the export of another failed
        else:
            card, held_out = (
                findings.validation.candidates[name],
                findings.held_out.candidates.get(name),
            )
        reason = findings.selection.reasons.get(name, "the model to be replaced")
        about = (str(card.quality), f"p95 {latency.p95_ms:.3g} ms", reason)
        points.append(
            Point(
                name,
                card.quality,
                held_out.quality if held_out and alike else None,
                latency.p95_ms,
                _role(findings.selection, name),
                "<br>".join([f"<b>{as_label(name)}</b>", *map(as_label, about)]),
            )
        )
    return points


def _role(selection: Selection, name: str) -> Role:
    if name == TEACHER:
        return "teacher"
    if name == selection.chosen:
        return "chosen"
    return "front" if name in selection.front else "other"


def _row(
    findings: Findings,
    name: str,
    card: Scorecard | None,
    outcome: str,
    candidate: Candidate | None = None,
) -> Row:
    latency = findings.latencies.by_name.get(name)
    faster = speed_up(findings, latency) if latency else None
    judgement = findings.proof.judgements.get(name)
    gap = judgement.comparison.difference if judgement and judgement.comparison else None
    quality = card.quality if card else None
    validation = candidate.validation if candidate else findings.validation.models.get(name)
    seeds = card.spread.get(f"quality/{card.metric}") if card else None
    return {
        "model": name,
        findings.metric: f"{quality.value:.4f}" if quality else "–",
        "interval": f"{quality.low:.3f}–{quality.high:.3f}" if quality else "–",
        "seeds": f"{seeds[0]:.4f}–{seeds[1]:.4f}" if seeds else "–",
        "on validation": f"{validation.quality.value:.4f}" if validation else "–",
        "verdict": str(judgement.verdict) if judgement else "–",
        "against control": f"{100 * gap.value:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"
        if gap
        else "–",
        "p50 ms": f"{latency.p50_ms:.3g}" if latency else "–",
        "p95 ms": f"{latency.p95_ms:.3g}" if latency else "–",
        "speed-up": f"{faster:.3g}×" if faster else "–",
        "outcome": outcome,
        "retention": _value(card, "fidelity/retention"),
        "agreement": _value(card, "fidelity/agreement"),
        **({"macro F1": _value(card, "quality/macro_f1")} if findings.metric != "macro F1" else {}),
        "ECE": _value(card, "calibration/ece"),
        "rows/s": f"{latency.throughput:,.0f}" if latency else "–",
        "MB": f"{candidate.student.disk_mb:.1f}" if candidate else "–",
        "parameters": f"{candidate.student.parameters:,}" if candidate else "–",
        "resident MB": f"{candidate.footprint.resident_mb:.0f}" if candidate else "–",
        "installed MB": f"{candidate.footprint.installed_mb:.0f}" if candidate else "–",
        "cold start s": f"{candidate.footprint.cold_start_s:.2f}" if candidate else "–",
        **({"per 1,000": _price(findings, name)} if findings.config.cost else {}),
    }


def _find_costs(findings: Findings) -> dict[str, Cost]:
    prices, latencies = findings.config.cost, findings.latencies.by_name
    if prices is None:
        return {}
    trained = {student.trained: student.seconds for student in findings.students}
    seconds = findings.teacher.seconds + findings.labels.seconds + sum(trained.values())
    answers, teacher = len(set(findings.rows.texts)), latencies.get(TEACHER)
    costs = {
        candidate.name: find_cost(prices, candidate.latency, teacher, seconds, answers)
        for candidate in findings.selection.candidates
    }
    return {name: cost for name, cost in costs.items() if cost is not None}


def _price(findings: Findings, name: str) -> str:
    costs = findings.costs
    if name == TEACHER and costs:
        return say_price(next(iter(costs.values())).teacher_per_1000)
    return say_price(costs[name].student_per_1000) if name in costs else "–"


def _value(card: Scorecard | None, name: str) -> str:
    return f"{card.values[name]:.4f}" if card and name in card.values else "–"


def _figure(card: Scorecard, name: str) -> str:
    figure: Figure | None = card.figures.get(name)
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" if figure else "–"


def _share(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(value: Any, other: Any) -> str:
    return "–" if value is None or other is None else f"{value - other:+.3f}"
