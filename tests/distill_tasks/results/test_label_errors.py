from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from builders import open_run, train_students
from samples import write_words

from distill_tasks.config import parse_config
from distill_tasks.data.corrections import row_keys
from distill_tasks.data.rows import read_corpus
from distill_tasks.reporting.relabelling import REVIEW, write_review
from distill_tasks.results.label_errors import SURE, find_label_errors

FLIPPED = {"train": 4, "validation": 7, "held_out": 9}
"""A row of each split whose gold is wrong."""
NEXT = {"cats": "dogs", "dogs": "fish", "fish": "cats"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows with some wrong labels, and a teacher that is right and sure of all."""
    folder = tmp_path_factory.mktemp("words")
    written = write_words(folder)
    answers = pd.read_parquet(folder / "answers.parquet")
    truth = pd.concat(pd.read_parquet(folder / f"{name}.parquet") for name in written["data"])
    for name in ("cats", "dogs", "fish"):
        right = (truth["label"] == name).to_numpy()
        answers[name] = np.where(right, 0.98, 0.01)
    answers.to_parquet(folder / "answers.parquet", index=False)
    for name, row in FLIPPED.items():
        rows = pd.read_parquet(folder / f"{name}.parquet")
        rows.loc[row, "label"] = NEXT[rows.loc[row, "label"]]
        rows.to_parquet(folder / f"{name}.parquet", index=False)
    return folder, parse_config(written, "test")


@pytest.fixture(scope="module")
def found(folder):
    run = open_run(folder[1])
    student = train_students(run)[0]
    return run, student, find_label_errors(run, student)


def test_the_labels_that_are_wrong_are_found_and_come_first(found):
    run, _, errors = found
    against_gold = [error for error in errors if error.against_gold]
    assert errors[: len(against_gold)] == against_gold
    assert {(e.split, e.text) for e in against_gold} == {
        (name, run.corpus.splits[name].texts[row]) for name, row in FLIPPED.items()
    }
    assert all(NEXT[error.teacher] == error.gold for error in against_gold)
    assert [error.key for error in errors] == row_keys([error.text for error in errors])


def test_each_half_is_ranked_and_sure(found):
    for half in (True, False):
        ranks = [error.rank for error in found[2] if error.against_gold is half]
        assert ranks == sorted(ranks, reverse=True)
    assert all(error.teacher_confidence >= SURE for error in found[2])
    others = [error for error in found[2] if not error.against_gold]
    assert all(error.student != error.teacher for error in others)
    assert not [error for error in others if error.split == "train"]


def test_without_a_student_the_teacher_alone_is_asked(found):
    run, student, errors = found
    alone = find_label_errors(run, None)
    blank = {"student": "", "student_confidence": None}
    assert alone == [replace(error, **blank) for error in errors if error.against_gold]
    assert {error.student for error in errors} <= set(run.corpus.classes)
    assert student is not None


def test_what_a_run_writes_is_read_back_once_it_is_filled(folder, found, tmp_path):
    """The wrong labels are right again when the teacher's are written into `corrected`."""
    _, _, errors = found
    write_review(SimpleNamespace(label_errors=errors), tmp_path)
    review = pd.read_csv(tmp_path / REVIEW, dtype=str, keep_default_na=False)
    assert set(review["corrected"]) == {""}
    review["corrected"] = review["teacher"]
    review.to_csv(tmp_path / "filled.csv", index=False)
    config = folder[1].data.model_copy(update={"corrections": str(tmp_path / "filled.csv")})
    corpus = read_corpus(config, seed=7)
    said = f"gold labels corrected by {config.corrections}: 3 "
    said += "(1 of train, 1 of validation, 1 of held_out)"
    assert said in [note.text for note in corpus.findings]


def test_a_spreadsheet_runs_none_of_the_texts(found, tmp_path):
    evil = replace(found[2][0], text="=HYPERLINK(1)", gold="-1", teacher="+1")
    write_review(SimpleNamespace(label_errors=[evil]), tmp_path)
    review = pd.read_csv(tmp_path / REVIEW, dtype=str)
    assert review.loc[0, ["text", "gold", "teacher"]].tolist() == ["'=HYPERLINK(1)", "'-1", "'+1"]
