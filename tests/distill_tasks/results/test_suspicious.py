import numpy as np
import pandas as pd
import pytest
from builders import open_run
from samples import CLASSES, write_words

from distill_tasks.config import parse_config
from distill_tasks.reporting.audit import ANSWERS, COLUMNS, write_answers
from distill_tasks.results.label_errors import SURE
from distill_tasks.results.suspicious import (
    AGAINST_GOLD,
    LOW_MARGIN,
    NEAR_REPEAT,
    TIE,
    find_suspicious,
)

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
