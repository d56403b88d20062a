from dataclasses import replace

import numpy as np
import pytest
from samples import GOOD, POOR

from distill_tasks.core.notes import Note, Rank
from distill_tasks.reporting.notes import gather_notes, group_notes
from distill_tasks.results.references import TEACHER
from distill_tasks.scoring.intervals import Figure
from distill_tasks.students import formats as variants
from distill_tasks.teachers import FinetuneTeacher
from distill_tasks.teachers.base import ONE_HOT


def added(findings, **changes):
    """Return the notes that some changes of the findings add."""
    before = gather_notes(findings)
    return [note for note in gather_notes(replace(findings, **changes)) if note not in before]


def score_teacher(findings, **accuracies):
    """Return the scores of splits in which the teacher has other accuracies, of so many rows."""
    changed = {}
    for split, (value, rows) in accuracies.items():
        scores = getattr(findings, split)
        card = scores.models[TEACHER]
        figures = card.figures | {"quality/accuracy": Figure(value, value, value, rows)}
        models = scores.models | {TEACHER: replace(card, figures=figures)}
        changed[split] = replace(scores, models=models)
    return changed


def answer(findings, logits):
    """Return the findings of a teacher that gives these answers to the training rows."""
    found = replace(findings)
    vars(found)["rows"] = findings.rows
    vars(found)["soft_labels"] = replace(findings.soft_labels, logits=logits)  # as if read once
    return found


def test_notes_are_sorted_by_rank_and_grouped_by_it(findings):
    notes = gather_notes(findings)
    groups = group_notes(notes)
    assert list(groups) == [rank for rank in Rank if rank in groups]
    assert [text for texts in groups.values() for text in texts] == [note.text for note in notes]
    assert group_notes([]) == {}


def test_what_the_files_and_the_data_report_say_is_among_the_notes_once(findings):
    told = [*findings.rows.findings, *findings.corpus.report.warnings]
    notes = gather_notes(findings)
    assert set(told) <= set(notes)
    twice = replace(findings.rows, findings=(*findings.rows.findings, *told))
    again = replace(findings)
    vars(again)["rows"] = twice
    assert gather_notes(again).count(told[0]) == notes.count(told[0]) == 1


@pytest.mark.parametrize(("worse", "rank"), [(False, Rank.KNOW), (True, Rank.ACT)])
def test_the_flags_of_finalists_are_notes_to_act_on_where_production_differs(findings, worse, rank):
    flagged = replace(findings.proof.judgements[GOOD], flags=["it rains"])
    agreed = Figure(0.2, 0.1, 0.3, 90) if worse else findings.proof.production[GOOD].agreement
    check = replace(findings.proof.production[GOOD], agreement=agreed)
    proof = replace(
        findings.proof,
        judgements=findings.proof.judgements | {GOOD: flagged},
        production=findings.proof.production | {GOOD: check},
    )
    assert check.is_worse is worse
    assert Note(rank, f"{GOOD}: it rains") in added(findings, proof=proof)


def test_a_teacher_no_better_than_words_on_gold_must_be_acted_on(findings):
    models = findings.held_out.models
    weak = replace(findings.held_out, models=models | {TEACHER: models["words-on-gold"]})
    (note,) = [one for one in added(findings, held_out=weak) if "words on gold" in one.text]
    assert note.rank is Rank.ACT
    assert "does not clearly beat words on gold" in note.text
    assert note.text.endswith("distillation has little to give here")


def test_a_variant_whose_export_failed_must_be_acted_on_and_says_the_reason(findings):
    failed = {"layers-2-onnx": "its export failed: TypeError: no such operator"}
    (note,) = added(findings, grid=replace(findings.grid, failed=failed))
    reason = "layers-2-onnx was left out: its export failed: TypeError: no such operator"
    assert note == Note(Rank.ACT, reason)


def test_transformers_that_lack_their_variants_for_want_of_a_package_should_be_known(
    findings, monkeypatch
):
    students = [replace(student, variant="torch") for student in findings.students]
    torch = replace(findings.grid, students=students)
    assert added(findings, grid=torch) == []
    monkeypatch.setattr(variants, "find_spec", lambda _: None)
    (note,) = added(findings, grid=torch)
    assert note.rank is Rank.KNOW
    assert "pip install 'potstill[onnx]'" in note.text
    declined = variants.ExportConfig(variants=())
    config = findings.config.model_copy(update={"export": declined})
    assert added(findings, grid=torch, run=replace(findings.run, config=config)) == []


def test_classes_that_the_student_never_predicts_must_be_acted_on(findings, uneven, nothing):
    said = Note(Rank.ACT, f"{GOOD} never predicts fish (7 rows) of held-out")
    assert said in gather_notes(uneven)
    assert not [note for note in gather_notes(findings) if "never predicts" in note.text]
    assert POOR not in str(gather_notes(nothing))


# A teacher that somebody else trained.


@pytest.mark.parametrize(
    ("validation", "held_out", "seen"),
    [
        ((0.98, 200), (0.80, 500), True),
        ((0.98, 40), (0.90, 40), False),  # too few rows to be sure
        ((0.98, 9000), (0.95, 9000), False),  # surely better, and not by much
        ((0.80, 200), (0.98, 500), False),
    ],
)
def test_a_teacher_far_better_on_validation_than_on_held_out_has_seen_it(
    findings, validation, held_out, seen
):
    notes = added(findings, **score_teacher(findings, validation=validation, held_out=held_out))
    assert [note.rank for note in notes] == [Rank.ACT] * seen
    if seen:
        assert notes[0].text.startswith(
            "the teacher is right on 98.0 % of validation and 80.0 % of held-out, +18.00 points ["
        )


def test_a_teacher_that_is_trained_here_may_know_its_rows(findings):
    trained = FinetuneTeacher(base="anywhere")
    config = findings.config.model_copy(update={"teacher": trained})
    scores = score_teacher(findings, validation=(1.0, 200), held_out=(0.8, 500))
    assert added(findings, run=replace(findings.run, config=config), **scores) == []


@pytest.mark.parametrize(("rows", "told"), [(99, False), (100, True)])
@pytest.mark.parametrize("split", ["validation", "held_out"])
def test_a_teacher_without_a_mistake_has_seen_the_rows_if_they_are_enough(
    findings, split, rows, told
):
    other = {"validation": "held_out", "held_out": "validation"}[split]
    changes = score_teacher(findings, **{split: (1.0, rows), other: (0.99, rows)})
    notes = added(findings, **changes)
    assert [note.rank for note in notes] == [Rank.ACT] * told
    assert all(f"all rows of {split} (100) right: it has probably" in n.text for n in notes)


def test_a_teacher_that_knows_train_by_heart_should_be_known(findings):
    rows = findings.rows
    train = rows.splits["train"].take(np.resize(np.arange(len(rows.splits["train"])), 120))
    many = replace(findings)
    vars(many)["rows"] = replace(rows, splits=rows.splits | {"train": train})
    logits = 3 * np.eye(3, dtype=np.float32)[train.gold]
    (note,) = [n for n in gather_notes(answer(many, logits)) if "answers all rows" in n.text]
    assert note.rank is Rank.KNOW
    assert "all rows of train (120) right" in note.text


def test_one_hot_answers_are_said_to_teach_less(findings):
    soft = findings.soft_labels.logits
    hard = np.log(np.maximum(np.eye(3, dtype=np.float32)[soft.argmax(axis=1)], 1e-6))
    assert ONE_HOT not in gather_notes(answer(findings, soft))
    assert gather_notes(answer(findings, hard)).count(ONE_HOT) == 1
    hard[0] = soft[0]  # a single row that is not
    assert ONE_HOT not in gather_notes(answer(findings, hard))
