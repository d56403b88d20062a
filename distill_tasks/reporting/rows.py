"""The rows of the report's tables: figures in typed fields, no text but names and reasons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distill_tasks.results.grid import WITHOUT_SYNTHETIC
from distill_tasks.results.references import TEACHER
from distill_tasks.students.controls import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from distill_tasks.measuring.cost import Cost
    from distill_tasks.measuring.footprint import Footprint
    from distill_tasks.measuring.latency import Latency, SpeedUp
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.outcomes import Scores
    from distill_tasks.results.selection import Candidate
    from distill_tasks.scoring.intervals import Figure
    from distill_tasks.scoring.parity import Parity
    from distill_tasks.scoring.scorecard import Scorecard
    from distill_tasks.scoring.verdicts import Verdict


TEACHER_AGAIN = "teacher, asked again"
"""The name of the row that shows how often the teacher agrees with itself."""
VARIANTS_OF_TEACHER = {
    "onnx": "exported, in float32",
    "onnx_int8": "exported and quantised to int8",
    "onnx_int8_static": "exported and quantised to int8 with fixed scales",
}
"""What each exported form of the teacher is."""


@dataclass(frozen=True)
class ModelRow:
    """One model of the table of all: teacher, candidate, control, or what was left out."""

    name: str
    outcome: str
    """Why it was chosen or not, or what it is."""
    quality: Figure | None
    """On held-out, over its seeds; None if it was not scored there."""
    seeds: tuple[float, float] | None
    """Least and greatest held-out quality among its seeds; None of a single one."""
    validation_quality: Figure | None
    verdict: Verdict | None
    less_control: Figure | None
    """Its held-out quality minus that of the same student trained on gold alone."""
    retention: float | None
    agreement: float | None
    macro_f1: float | None
    ece: float | None
    latency: Latency | None
    speed_up: SpeedUp | None
    """The teacher's latencies divided by its own."""
    speed_up_over_variant: SpeedUp | None
    """Those of the teacher's best variant, divided by its own."""
    footprint: Footprint | None
    disk_mb: float | None
    parameters: int | None
    price_per_1000: float | None
    """Of its answers, where prices are given."""


@dataclass(frozen=True)
class VariantRow:
    """A variant of a student, compared with the student as it was trained."""

    name: str
    p50_ms: float
    speed_up: SpeedUp
    """Latencies of the student as it was trained, divided by its own."""
    validation: Parity | None
    """Compared with the student as it was trained; None if it is that student."""
    held_out: Parity | None


@dataclass(frozen=True)
class ClassRow:
    """One class: the chosen student's figures on held-out, beside the teacher's."""

    name: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float | None
    teacher_f1: float | None

    @property
    def less_teacher(self) -> float | None:
        """F1 of the student minus the teacher's."""
        if self.f1 is None or self.teacher_f1 is None:
            return None
        return self.f1 - self.teacher_f1

    @property
    def never_predicted(self) -> bool:
        """Whether it has rows but the student never predicts it."""
        return self.rows > 0 and self.precision is None


@dataclass(frozen=True)
class CalibrationRow:
    """How well the confidence of a model is calibrated."""

    name: str
    temperature: float
    ece: Figure | None
    nll: Figure | None
    brier: Figure | None
    coverage: Figure | None
    """Share of rows that it answers; None if it answers all."""
    precision: Figure | None
    """Share of the answered rows that are right."""


def list_models(findings: Findings) -> list[ModelRow]:
    """Return every model: teacher, finalists, other candidates, those left out, controls."""
    selection, held_out = findings.selection, findings.held_out
    about_teacher = "the model to be replaced"
    rows = [_model_row(findings, TEACHER, about_teacher, held_out.models[TEACHER])]
    if again := findings.audit.self_agreement:
        highest = f"{100 * again.highest_agreement:.0f} % at most"
        about = f"ceiling: the same teacher asked twice; students can agree with it in {highest}"
        ceiling = _model_row(findings, TEACHER_AGAIN, about, None)
        rows.append(replace(ceiling, agreement=again.share.value))
    for candidate in _sort_candidates(findings):
        name = candidate.name
        card, reason = held_out.candidates.get(name), selection.reasons[name]
        rows.append(_model_row(findings, name, reason, card, candidate))
    left_out = {name: f"left out: {why}" for name, why in findings.grid.failed.items()}
    for name, reason in (left_out | findings.halving.reasons).items():
        rows.append(_model_row(findings, name, reason, None))
    for variant in findings.teacher_variants:
        about = f"control: the teacher {VARIANTS_OF_TEACHER[variant.student.variant]}"
        card = held_out.models.get(variant.name)
        rows.append(_model_row(findings, variant.name, about, card, variant))
    for name, about, card in _find_controls(held_out):
        rows.append(_model_row(findings, name, f"control: {about}", card))
    if (ablation := findings.ablation) is not None:
        name = f"{ablation.student}-{WITHOUT_SYNTHETIC}"
        about = f"control: {ablation.student} without the {ablation.rows:,} synthetic rows"
        rows.append(_model_row(findings, name, about, ablation.ablated))
    return rows


def list_variants(findings: Findings) -> list[VariantRow]:
    """Return the variants of every student that has some, and the student itself."""
    candidates, latencies = findings.selection.candidates, findings.latencies.by_name
    several = {candidate.student.student for candidate in candidates if candidate.parity}
    return [
        VariantRow(
            name=candidate.name,
            p50_ms=candidate.latency.p50_ms,
            speed_up=candidate.latency.speed_up_over(latencies[candidate.student.student]),
            validation=candidate.parity,
            held_out=findings.proof.parities.get(candidate.name),
        )
        for candidate in candidates
        if candidate.student.student in several
    ]


def list_classes(findings: Findings, choice: Candidate) -> list[ClassRow]:
    """Return the chosen student's figures for each class, beside the teacher's."""
    cards = findings.held_out.models
    teacher = {row["class"]: row for row in cards[TEACHER].per_class}
    return [_class_row(row, teacher[row["class"]]) for row in cards[choice.name].per_class]


def list_calibration(findings: Findings, choice: Candidate) -> list[CalibrationRow]:
    """Return the calibration of teacher and chosen student."""
    cards = findings.held_out.models
    return [_calibration_row(name, cards[name]) for name in (TEACHER, choice.name)]


def _sort_candidates(findings: Findings) -> list[Candidate]:
    """Return the candidates scored on held-out, best first, then the others."""
    seen = findings.held_out.candidates

    def place(candidate: Candidate) -> tuple[bool, float, float]:
        card = seen.get(candidate.name)
        quality = (card or candidate.validation).quality.value
        return card is None, -quality, candidate.latency.p95_ms

    return sorted(findings.selection.candidates, key=place)


def _find_controls(held_out: Scores) -> Iterator[tuple[str, str, Scorecard]]:
    """Yield the name of each control, what it is, and its scorecard."""
    for name, card in held_out.on_gold.items():
        yield f"{name}-on-gold", f"{name} without a teacher", card
    for name, control in CONTROLS.items():
        if name in held_out.models:
            yield name, control.about, held_out.models[name]


def _model_row(
    findings: Findings,
    name: str,
    outcome: str,
    card: Scorecard | None,
    candidate: Candidate | None = None,
) -> ModelRow:
    latency, judgement = findings.latencies.by_name.get(name), findings.proof.judgements.get(name)
    validation = candidate.validation if candidate else findings.validation.models.get(name)
    values = card.values if card else {}
    return ModelRow(
        name=name,
        outcome=outcome,
        quality=card.quality if card else None,
        seeds=card.spread.get(f"quality/{card.metric}") if card else None,
        validation_quality=validation.quality if validation else None,
        verdict=judgement.verdict if judgement else None,
        less_control=judgement.difference if judgement else None,
        retention=values.get("fidelity/retention"),
        agreement=values.get("fidelity/agreement"),
        macro_f1=values.get("quality/macro_f1"),
        ece=values.get("calibration/ece"),
        latency=latency,
        speed_up=findings.speed_up(latency) if latency else None,
        speed_up_over_variant=findings.speed_up_over_variant(latency) if latency else None,
        footprint=candidate.footprint if candidate else None,
        disk_mb=candidate.student.disk_mb if candidate else None,
        parameters=candidate.student.parameters if candidate else None,
        price_per_1000=_find_price(findings.costs, name),
    )


def _find_price(costs: Mapping[str, Cost], name: str) -> float | None:
    """Return what 1,000 answers of the teacher or of a candidate cost, where that is known."""
    if name == TEACHER:
        return next((cost.teacher_per_1000 for cost in costs.values()), None)
    return costs[name].student_per_1000 if name in costs else None


def _class_row(ours: Mapping[str, Any], teacher: Mapping[str, Any]) -> ClassRow:
    return ClassRow(
        ours["class"], ours["rows"], ours["precision"], ours["recall"], ours["f1"], teacher["f1"]
    )


def _calibration_row(name: str, card: Scorecard) -> CalibrationRow:
    return CalibrationRow(
        name=name,
        temperature=card.temperature,
        ece=card.figures.get("calibration/ece"),
        nll=card.figures.get("calibration/nll"),
        brier=card.figures.get("calibration/brier"),
        coverage=card.figures.get("answering/coverage"),
        precision=card.figures.get("answering/precision"),
    )
