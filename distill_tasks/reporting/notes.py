"""The notes of a run: what its user should hear of before trusting it, the most urgent first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.core.errors import shortlist
from distill_tasks.core.notes import Note, Rank, sort_notes
from distill_tasks.problems.classification import are_one_hot, decide, to_decisions
from distill_tasks.reporting.audit import note_self_agreement, note_suspicious
from distill_tasks.reporting.relabelling import note_label_errors
from distill_tasks.reporting.rows import list_classes
from distill_tasks.reporting.synthetic import note_synthetic
from distill_tasks.results.references import TEACHER
from distill_tasks.scoring.intervals import subtract_shares
from distill_tasks.students.controls import WORDS_ON_GOLD
from distill_tasks.students.formats import choose_variants
from distill_tasks.teachers.base import ONE_HOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill_tasks.results.findings import Findings

FAR_BETTER = 0.05
"""A ready teacher whose accuracy is higher by this on rows of validation has probably seen them."""
FEWEST_PERFECT_ROWS = 100
"""Rows that a teacher must all get right to have probably seen them.

One that is wrong on 3 rows in 100 is that lucky once in twenty times: 0.97¹⁰⁰ = 0.048.
"""


def gather_notes(findings: Findings) -> list[Note]:
    """Return the notes of a run without repeats, sorted by rank."""
    notes = [
        *_note_weak_teacher(findings),
        *_note_ready_teacher(findings),
        *_note_unpredicted(findings),
        *_note_flags(findings),
        *(
            Note(Rank.ACT, f"{name} was left out: {reason}")
            for name, reason in findings.grid.failed.items()
        ),
        *_note_variants(findings),
        *_note_carvings(findings),
        *_note_left_out(findings),
        *note_synthetic(findings),
        *note_label_errors(findings),
        *note_self_agreement(findings.audit),
        *note_suspicious(findings.suspicious_answers, findings.audit),
        *findings.rows.findings,
        *findings.corpus.report.warnings,
    ]
    return sort_notes(dict.fromkeys(notes))


def group_notes(notes: Sequence[Note]) -> dict[Rank, list[str]]:
    """Return the texts of notes by rank, the most urgent first; ranks without any are left out."""
    groups = {rank: [note.text for note in notes if note.rank is rank] for rank in Rank}
    return {rank: texts for rank, texts in groups.items() if texts}


def _note_weak_teacher(findings: Findings) -> list[Note]:
    control = findings.held_out.models.get(WORDS_ON_GOLD)
    teacher = findings.held_out.models[TEACHER].quality
    if control is None or control.quality.high < teacher.low:
        return []
    weak = f"the teacher ({teacher}) does not clearly beat words on gold ({control.quality})"
    return [Note(Rank.ACT, f"{weak}: distillation has little to give here")]


def _note_ready_teacher(findings: Findings) -> list[Note]:
    """Return notes on a teacher that was trained elsewhere and may have seen these rows."""
    if not findings.config.teacher.ready:
        return []
    hard = are_one_hot(findings.soft_labels.logits, findings.config.problem)
    return [*_note_better_on_validation(findings), *_note_perfect(findings), *[ONE_HOT] * hard]


def _note_better_on_validation(findings: Findings) -> list[Note]:
    accuracies = [
        scores.models[TEACHER].figures.get("quality/accuracy")
        for scores in (findings.validation, findings.held_out)
    ]
    validation, held_out = accuracies
    if validation is None or held_out is None:
        return []
    gap = subtract_shares(validation, held_out)
    if gap.low <= 0 or gap.value < FAR_BETTER:
        return []
    shares = f"{100 * validation.value:.1f} % of validation and {100 * held_out.value:.1f} %"
    return [
        Note(
            Rank.ACT,
            f"the teacher is right on {shares} of held-out, {gap.points} less: it has probably "
            "seen the validation rows, so what was chosen on them may not hold; give "
            "data.validation rows that it never saw",
        )
    ]


def _note_perfect(findings: Findings) -> list[Note]:
    perfect = _find_perfect(findings)
    if not perfect:
        return []
    listed = " and of ".join(f"{name} ({rows:,})" for name, rows in perfect.items())
    rank = Rank.KNOW if list(perfect) == ["train"] else Rank.ACT
    right = f"the teacher answers all rows of {listed} right: it has probably seen them"
    return [Note(rank, f"{right}, and is less sure of rows that it has not")]


def _find_perfect(findings: Findings) -> dict[str, int]:
    """Return the gold rows of each split that the teacher answers without any mistake."""
    scored = {"validation": findings.validation, "held_out": findings.held_out}
    figures = {n: s.models[TEACHER].figures.get("quality/accuracy") for n, s in scored.items()}
    shares = {name: (one.value, one.rows) for name, one in figures.items() if one is not None}
    train = findings.rows.splits["train"]
    if train.has_gold:
        logits = findings.soft_labels.logits[: len(train)]
        gold = to_decisions(train.gold, logits.shape[1])
        right = (decide(logits, findings.config.problem) == gold).all(axis=1)
        shares = {"train": (float(right.mean()), len(train)), **shares}
    return {
        name: rows
        for name, (share, rows) in shares.items()
        if share == 1 and rows >= FEWEST_PERFECT_ROWS
    }


def _note_unpredicted(findings: Findings) -> list[Note]:
    choice = findings.selection.choice
    if choice is None:
        return []
    never = [row for row in list_classes(findings, choice) if row.never_predicted]
    if not never:
        return []
    listed = shortlist(f"{row.name} ({row.rows} rows)" for row in never)
    return [Note(Rank.ACT, f"{choice.name} never predicts {listed} of held-out")]


def _note_left_out(findings: Findings) -> list[Note]:
    """Return which students the budget did not hold."""
    names, budget = findings.run.left_out, findings.config.budget
    if not names or budget is None:
        return []
    listed = shortlist(names)
    return [Note(Rank.KNOW, f"left out, for a budget of {budget.minutes:g} minutes: {listed}")]


def _note_carvings(findings: Findings) -> list[Note]:
    """Return on how many rows students were compared, where validation was carved repeatedly."""
    evaluate, candidates = findings.config.evaluate, findings.selection.candidates
    if evaluate.validation_folds == 1 or not candidates:
        return []
    compared = "all" if evaluate.folds_for == "all" else "cheap"
    rows = max(candidate.quality.rows for candidate in candidates)
    carved = f"{evaluate.validation_folds} carvings of validation, {rows:,} rows with gold"
    return [Note(Rank.FINE, f"{compared} students were compared on {carved}")]


def _note_flags(findings: Findings) -> list[Note]:
    """Return the flags of the verdicts as notes; a difference on production must be acted on."""
    notes, production = [], findings.proof.production
    for name, judgement in findings.proof.judgements.items():
        check = production.get(name)
        differs = check is not None and (check.is_worse or check.is_foreign)
        rank = Rank.ACT if differs else Rank.KNOW
        notes += [Note(rank, f"{name}: {flag}") for flag in judgement.flags]
    return notes


def _note_variants(findings: Findings) -> list[Note]:
    settings = findings.config.export
    torch = any(student.variant == "torch" for student in findings.students)
    if settings.variants != "auto" or not torch or choose_variants(settings):
        return []
    wanted = "`pip install 'potstill[onnx]'` adds ONNX and int8"
    return [Note(Rank.KNOW, f"transformer students compete in torch alone: {wanted}")]
