import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.gold import find_conflicts, read_gold
from distill_tasks.data.settings import RowFormat

names = st.text(min_size=1).filter(lambda name: name.strip() and "|" not in name)


def read(train, held_out=(), problem="multi_label", known=(), **settings):
    """Read the cells of a column of two splits; return the rows of train, and what was said."""
    frames = {
        split: pd.DataFrame({"label": pd.Series(list(cells), dtype=object)})
        for split, cells in (("train", train), ("held_out", held_out))
        if len(cells)
    }
    found, findings = read_gold(frames, RowFormat(**settings), problem, known)
    return found["train"], findings


@pytest.mark.parametrize("blank", ["", "  \n", None, np.nan, pd.NA])
def test_a_blank_label_is_a_missing_one(blank):
    with pytest.raises(InputError, match=r"data\.train: 2 rows have no 'label' \(row 1, 3\)"):
        read(["billing", blank, "login", blank], problem="single_label")
    rows, findings = read(["billing", blank])
    assert rows == [("billing",), ()]
    assert findings == [Note(Rank.KNOW, "1 rows of train carry none of the labels")]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['billing', 'login']", ("billing", "login")),
        ('["billing","login"]', ("billing", "login")),
        ("['billing' 'login']", ("billing", "login")),
        ("['billing'\n 'login']", ("billing", "login")),
        ("('billing',)", ("billing",)),
        ("{'billing', 'login'}", ("billing", "login")),
        ("[]", ()),
        (" [ ] ", ()),
        (r"""["it's", 'a "b"', 'c\'d']""", ("it's", 'a "b"', "c'd")),
        ('["\\ud83d\\ude00"]', ("😀",)),
        ("[0, 2]", ("0", "2")),
        ("[ 1. nan]", ("1",)),
        ("[None, 'a', True]", ("a", "True")),
        ('["a", null]', ("a",)),
        ("['a, b']", ("a, b",)),
    ],
)
def test_a_list_as_text_is_a_list(cell, labels):
    assert read(["other", cell])[0][1] == labels


@given(st.lists(names, max_size=5, unique=True))
def test_lists_come_back_from_the_text_that_python_json_and_numpy_make_of_them(labels):
    for written in (str(labels), json.dumps(labels), str(np.array(labels, dtype=object))):
        assert read([written])[0] == [tuple(labels)]


@pytest.mark.parametrize("cell", ["[billing, login]", "['billing' login]", "['a''b']"])
def test_a_list_that_cannot_be_read_names_the_format_and_the_option(cell):
    with pytest.raises(InputError, match=r"Write \['a', 'b'\], or set label_separator"):
        read(["login", cell])


def test_brackets_belong_to_names_where_a_separator_is_set():
    rows, _ = read(["[spam]|[ham]", "[spam]"], label_separator="|")
    assert rows == [("[spam]", "[ham]"), ("[spam]",)]


@pytest.mark.parametrize("column", [["['a', 'b']", "['b']"], [["a", "b"], "a"]])
def test_lists_are_no_single_labels(column):
    with pytest.raises(InputError, match=r"holds lists of labels, as \['a', 'b'\].*multi_label"):
        read(column, problem="single_label")


def test_a_single_label_in_brackets_stays_as_it_is_written():
    rows, findings = read(["[1]", "spam", "[spam]"], problem="single_label")
    assert rows == [("[1]",), ("spam",), ("[spam]",)]
    assert findings == []


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_another_separator_is_recognised_where_all_that_it_parts_stands_alone_too(mark):
    joined = f"billing{mark} login"
    rows, findings = read([joined, "billing"], ["login"])
    assert rows == [("billing", "login"), ("billing",)]
    read_so = f"labels are read as written with {mark!r} between them"
    assert findings == [Note(Rank.KNOW, read_so)]
    rows, _ = read([joined], known=["billing", "login"])
    assert rows == [("billing", "login")]


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_separator_that_may_belong_to_a_name_is_asked_about(mark):
    column = [f"food{mark} drinks", "food"]
    with pytest.raises(InputError, match=rf"'label' holds '{mark}' in 1 labels, as 'food{mark}"):
        read(column)
    assert read(column, label_separator=mark)[0] == [("food", "drinks"), ("food",)]
    assert read(column, label_separator="|")[0] == [(f"food{mark} drinks",), ("food",)]
    assert read(column, known=column)[0] == [(f"food{mark} drinks",), ("food",)]


def test_a_known_name_is_never_parted_beside_labels_that_are():
    column = ["food, drinks", "food", "drinks", "food, tea", "tea"]
    with pytest.raises(InputError, match=r"in 1 labels, as 'food, drinks'"):
        read(column, known=["food", "drinks", "tea", "food, drinks"])


def test_commas_belong_to_names_where_the_usual_separator_stands_between_them():
    assert read(["food, drinks|tea", "food, drinks"])[0] == [
        ("food, drinks", "tea"),
        ("food, drinks",),
    ]


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_whole_numbers_are_whole_whatever_a_missing_one_made_of_them(problem):
    column = [1.0, np.float32(2), 3, np.int64(4), 0.5, True, "05"]
    rows, _ = read(column, problem=problem)
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "0.5", "True", "05"]


def test_empty_places_of_lists_are_left_out_and_counted():
    rows, findings = read([np.array([1.0, np.nan]), [np.nan], ["a", "", None, "a"]])
    assert rows == [("1",), (), ("a",)]
    assert findings == [
        Note(Rank.FINE, "4 empty places in lists of labels of train were left out"),
        Note(Rank.KNOW, "1 rows of train carry none of the labels"),
    ]


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
@pytest.mark.parametrize("cell", [{"id": 1, "name": "a"}, b"a", pd.Timestamp("2026-11-26")])
def test_what_is_neither_text_nor_number_is_no_label(problem, cell):
    said = rf"data\.train: 'label' holds .*, which is no label \({type(cell).__name__}\)"
    with pytest.raises(InputError, match=said) as caught:
        read(["a", cell], problem=problem)
    assert "\n" not in str(caught.value)


def test_structs_in_lists_are_no_labels():
    with pytest.raises(InputError, match=r"no label \(dict\)"):
        read([[{"name": "a"}]])


ALIKE = ["billing", "billing", " billing", "Billing", "login", "LOG  IN", "log in"]


def test_names_alike_are_told_with_what_would_be_merged():
    rows, findings = read(ALIKE, problem="single_label")
    assert rows == [(name,) for name in ALIKE]
    (said,) = findings
    assert said.rank is Rank.ACT
    assert said.text == (
        "labels differ in case or spaces alone: ' billing', 'Billing' (2 rows) as 'billing'; "
        "'LOG  IN' (1 rows) as 'log in'; set merge_labels to read them as one"
    )


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_names_alike_are_merged_on_request(problem):
    rows, findings = read(ALIKE, problem=problem, merge_labels=True)
    assert [name for (name,) in rows] == [*["billing"] * 4, "login", "log in", "log in"]
    assert findings[0].text.startswith("labels were merged: ")
    rows, _ = read(["Billing", "billing"], problem=problem, known=["BILLING"], merge_labels=True)
    assert rows == [("BILLING",), ("BILLING",)]


def test_of_several_labels_alike_one_is_left():
    assert read([["a", "A", "b"], ["a"]], merge_labels=True)[0] == [("a", "b"), ("a",)]


def test_names_that_are_unlike_are_never_merged():
    column = ["a b", "ab", "a-b", "1", "10", "é", "e"]
    assert read(column, problem="single_label", merge_labels=True) == ([(n,) for n in column], [])


@pytest.mark.parametrize(
    ("problem", "option"),
    [("single_label", "problem: multi_label"), ("multi_label", "data.label_separator")],
)
def test_labels_that_look_like_several_in_one_are_named(problem, option):
    column = ["billing/login", "billing", "login", "tcp/ip", "tcp"]
    rows, findings = read(column, problem=problem)
    assert rows == [(name,) for name in column]
    several = f"labels look like several in one: billing/login; if they are, set {option}"
    assert findings == [Note(Rank.ACT, several)]
    assert read(column, problem=problem, label_separator="|")[1] == []


def test_texts_with_different_labels_are_named_with_their_rows():
    texts = {"train": ["same", "other", "same", "none"], "held_out": ["other", "none", "same"]}
    labels = {"train": [("a",), ("b",), ("c",), ()], "held_out": [("b",), ("a", "b"), ("a",)]}
    (said,) = find_conflicts(texts, labels)
    assert said.text == (
        "2 texts have different labels: a (train row 0) and c (train row 2), "
        "none (train row 3) and a, b (held_out row 1)"
    )


def test_equal_texts_with_equal_labels_are_no_conflict():
    labels = [("a", "b"), ("b", "a")]
    assert find_conflicts({"train": ["same", "same"]}, {"train": labels}) == []
