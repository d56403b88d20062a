"""What is trained and answered by workers is what one process trains and answers."""

import numpy as np
import pandas as pd
import pytest
from builders import make_run, train_students
from samples import write_words

from distill_tasks.config import parse_config
from distill_tasks.results import evaluator
from distill_tasks.results.evaluator import Evaluator, answer_somewhere
from distill_tasks.results.grid import first_trials
from distill_tasks.scoring.predictions import answer_sorted
from distill_tasks.stages.cross_validate import cross_validate, train_folds

TWO = {"kind": "local", "workers": 2}


def carve(folder, **changes):
    """Return a run whose validation is carved from its rows with gold."""
    folder.mkdir()
    written = write_words(folder)
    parts = [pd.read_parquet(written["data"].pop(name)) for name in ("train", "validation")]
    pd.concat(parts).to_parquet(folder / "train.parquet", index=False)
    written["data"]["train"] = str(folder / "train.parquet")
    evaluate = {"seeds": 1, "validation_folds": 3}
    return make_run(parse_config(written | {"evaluate": evaluate} | changes, "test"))


@pytest.mark.usefixtures("prefect_server")
def test_further_carvings_are_trained_by_workers_as_by_one_process(tmp_path, monkeypatch):
    alone, beside = carve(tmp_path / "alone"), carve(tmp_path / "beside", execution=TWO)
    trials = first_trials(alone.config)
    expected = train_folds(alone.open(), trials)
    with monkeypatch.context() as here:
        here.setattr("distill_tasks.results.trained._learn", None)  # nobody learns in this process
        made = cross_validate(beside, trials)
        found = cross_validate(beside, trials)
    assert len(made.folds) == 2
    names = [[one.digest for one in fold] for fold in made.folds]
    assert names == [[one.digest for one in fold] for fold in expected.folds]
    assert [made.reused, found.reused] == [False, True]


def test_workers_answer_where_there_is_much_to_answer(tmp_path, monkeypatch):
    run = carve(tmp_path / "beside", execution=TWO)
    opened = run.open()
    students = train_students(opened)
    answer_somewhere(run, opened, students, "held_out")
    kept = Evaluator(opened, "held_out").answers
    assert not any(kept.holds(one.digest) for one in students), "too few to start workers for"
    monkeypatch.setattr(evaluator, "FEWEST_ANSWERS", 1)
    answer_somewhere(run, opened, students, "held_out")
    assert all(kept.holds(one.digest) for one in students)
    monkeypatch.setattr(evaluator, "open_model", None)  # so that nothing is asked here
    answered = [Evaluator(opened, "held_out").ask(one).logits for one in students]
    monkeypatch.undo()
    texts = opened.corpus.splits["held_out"].texts
    for student, logits in zip(students, answered, strict=True):
        again = answer_sorted(evaluator.open_model(student.folder), texts, student.name)
        np.testing.assert_array_equal(logits, again)
