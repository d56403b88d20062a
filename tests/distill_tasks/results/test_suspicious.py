from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import open_run
from samples import CLASSES, write_words

from distill_tasks.config import parse_config
from distill_tasks.data.near_repeats import keep_near_repeats
from distill_tasks.reporting.audit import (
    ANSWERS,
    COLUMNS,
    note_suspicious,
    say_audit,
    write_answers,
)
from distill_tasks.results.audit import audit_teacher
from distill_tasks.results.doubts import AGAINST_GOLD, LOW_MARGIN, NEAR_REPEAT, SURE, TIE
from distill_tasks.results.grid import Trial
from distill_tasks.results.run import make_training_set
from distill_tasks.results.suspicious import find_suspicious
from distill_tasks.results.trained import digest_training
from distill_tasks.stages.audit import audit_answers
from distill_tasks.students.controls import without_teacher

LONG = " ".join(f"word{number}" for number in range(40))
PAIR = (f"{LONG} kitten", f"{LONG} puppy")
SURELY = {True: 0.98, False: 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sure and right answers, but for one against gold, one tie, and a pair of near repeats."""
    folder = tmp_path_factory.mktemp("suspicious")
    written = write_words(folder)
    train = pd.read_parquet(folder / "train.parquet")
    pair = pd.DataFrame({"text": PAIR, "label": ["cats", "cats"]})
    pd.concat([train, pair]).to_parquet(folder / "train.parquet", index=False)
    splits = [pd.read_parquet(folder / f"{name}.parquet") for name in written["data"]]
    rows = pd.concat(splits).drop_duplicates("text")
    values = np.where(np.array([rows["label"] == name for name in CLASSES]).T, 0.98, 0.01)
    place = {text: number for number, text in enumerate(rows["text"])}
    values[place[train.loc[3, "text"]]] = np.roll(values[place[train.loc[3, "text"]]], 1)
    values[place[train.loc[5, "text"]]] = (0.35, 0.35, 0.3)
    values[place[PAIR[1]]] = (0.2, 0.6, 0.2)
    answers = pd.DataFrame(values, columns=list(CLASSES)).assign(text=rows["text"].to_numpy())
    answers.to_parquet(folder / "answers.parquet", index=False)
    return written, train


@pytest.fixture(scope="module")
def found(folder):
    return find_suspicious(open_run(parse_config(folder[0], "test")))


def test_each_kind_of_doubt_is_found_with_its_reason(folder, found):
    _, train = folder
    reasons = {one.text: set(one.reasons) for one in found}
    assert reasons.pop(train.loc[3, "text"]) == {AGAINST_GOLD}
    assert reasons.pop(train.loc[5, "text"]) == {TIE}
    assert reasons.pop(PAIR[0]) == {NEAR_REPEAT}
    assert NEAR_REPEAT in reasons.pop(PAIR[1])
    assert not reasons


def test_near_repeats_are_shown_with_each_other(found):
    rows = {one.text: one for one in found}
    first, second = (rows[text] for text in PAIR)
    assert (first.near_text, first.near_teacher) == (second.text, second.teacher)
    assert (second.near_text, second.near_teacher) == (first.text, first.teacher)
    assert (first.teacher, second.teacher) == ("cats", "dogs")


def test_the_figures_are_what_the_reasons_say(found):
    for one in found:
        assert all(0 <= doubt <= 1 for doubt in one.reasons.values())
        assert (TIE in one.reasons) is (one.margin < LOW_MARGIN)
        if AGAINST_GOLD in one.reasons:
            assert one.confidence >= SURE
            assert one.gold not in ("", one.teacher)


def test_more_reasons_come_first_then_what_contradicts_gold(found):
    counts = [len(one.reasons) for one in found]
    assert counts == sorted(counts, reverse=True)
    single = [next(iter(one.reasons)) for one in found if len(one.reasons) == 1]
    order = (AGAINST_GOLD, NEAR_REPEAT, TIE)
    assert single == sorted(single, key=order.index)


@pytest.fixture(scope="module")
def weighed(folder):
    """The same run, in which suspicious answers count a quarter."""
    written = folder[0] | {"loss": {"suspicious_weight": 0.25}}
    return open_run(parse_config(written, "test"))


def test_suspicious_answers_count_less_on_request_and_none_is_left_out(weighed, found):
    rows, doubted = weighed.corpus.training_rows, {one.text for one in found}
    weights = make_training_set(weighed, seed=0).soft_labels.weights
    expected = np.array([0.25 if text in doubted else 1 for text in rows.texts])
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)
    audit = audit_teacher(weighed)
    assert audit.suspicious == (weights < 1).sum() == 4
    counted = "suspicious answers to 4 training rows count 0.25 times the others"
    assert say_audit(audit)[-1].startswith(counted)
    (note,) = note_suspicious(found, audit)
    assert counted in note.text


def test_what_learns_from_weighed_answers_has_another_name_and_a_control_has_not(folder, weighed):
    plain, student = open_run(parse_config(folder[0], "test")), weighed.config.students[0]
    assert plain.soft_labels.weights is None
    assert plain.lesson_digest == plain.teacher.digest
    names = {
        distilled: {digest_training(run, Trial(student, 0, distilled)) for run in (plain, weighed)}
        for distilled in (True, False)
    }
    assert (len(names[True]), len(names[False])) == (2, 1)
    control = without_teacher(make_training_set(weighed, seed=0), student, None)
    assert control.soft_labels.weights is None


def test_the_audit_lists_them_in_the_folder_of_the_runs(weighed, found, caplog):
    with caplog.at_level("INFO", logger="potstill"):
        audit_answers(weighed)
    table = pd.read_csv(weighed.store.root / ANSWERS, dtype=str)
    assert table["key"].tolist() == [one.key for one in found]
    assert f"{len(found)} answers to look at are listed in {weighed.store.root}" in caplog.text


def test_near_repeats_are_those_that_were_found_when_the_rows_were_prepared(weighed):
    """A corpus that lost rows is not searched again: a search would not find the pair in it."""
    corpus, store = weighed.corpus, weighed.store
    pairs = keep_near_repeats(store, corpus)
    (((split, first), (_, second)),) = pairs.place(corpus)
    assert tuple(corpus.splits[split].texts[row] for row in (first, second)) == PAIR
    fewer = replace(
        corpus, splits={**corpus.splits, "train": corpus.splits["train"].take(np.r_[:9])}
    )
    assert keep_near_repeats(store, fewer, larger=corpus) == pairs
    assert keep_near_repeats(store, fewer) == pairs
    assert pairs.place(fewer) == []


def test_held_out_is_not_looked_at(folder, found):
    written, _ = folder
    held_out = set(pd.read_parquet(written["data"]["held_out"])["text"])
    assert not held_out & {one.text for one in found}


def test_the_table_is_defused_and_holds_every_answer(found, tmp_path):
    evil = found[0].__class__(**{**vars(found[0]), "text": "=1+1", "near_text": "@sum"})
    write_answers([*found, evil], tmp_path)
    table = pd.read_csv(tmp_path / ANSWERS, dtype=str, keep_default_na=False)
    assert list(table.columns) == list(COLUMNS)
    assert table["key"].tolist() == [one.key for one in [*found, evil]]
    assert table.iloc[-1]["text"] == "'=1+1"
    assert table.iloc[-1]["near_text"] == "'@sum"
