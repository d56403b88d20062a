import pandas as pd
import pytest
from samples import make_rows

from distill_tasks.core.errors import InputError
from distill_tasks.data.division import divide, write_table
from distill_tasks.data.survey import survey_table
from distill_tasks.data.tables import read_table


def split(frame, **how):
    return divide(frame, survey_table(frame, "rows"), **{"hold_out": True, **how})


def test_a_fifth_of_each_class_is_held_out_and_nothing_is_lost():
    rows = make_rows(150, seed=1)
    parts = split(rows)
    assert parts["held_out"]["label"].value_counts().to_dict() == dict.fromkeys(
        ("cats", "dogs", "fish"), 10
    )
    assert sorted(pd.concat(parts.values()).index) == list(rows.index)
    assert split(rows)["held_out"].equals(parts["held_out"])
    assert not split(rows, seed=1)["held_out"].equals(parts["held_out"])


def test_rows_without_label_are_to_be_labelled_and_rows_without_text_left_out():
    rows = make_rows(60, seed=1)
    rows.loc[:9, "label"] = None
    rows.loc[10:11, "text"] = " "
    parts = split(rows, hold_out=False)
    assert {name: len(part) for name, part in parts.items()} == {"train": 48, "transfer": 10}


def test_equal_texts_stay_on_one_side_and_no_class_is_held_out_alone():
    rows = pd.concat([make_rows(40, seed=1)] * 3, ignore_index=True)
    rows.loc[len(rows)] = ["the only whale of all", "whales"]
    parts = split(rows)
    assert not {*parts["train"]["text"]} & {*parts["held_out"]["text"]}
    assert {*parts["held_out"]["label"]} <= {*parts["train"]["label"]}
    assert "whales" not in {*parts["held_out"]["label"]}


def test_of_several_labels_each_that_is_held_out_is_trained_on():
    rows = make_rows(60, seed=1)
    rows["label"] = ["a|b", "b", "a", "a|c"] * 15
    rows.loc[59, "label"] = "a|d"
    parts = split(rows)
    known = {name for cell in parts["train"]["label"] for name in cell.split("|")}
    assert {name for cell in parts["held_out"]["label"] for name in cell.split("|")} <= known
    assert len(parts["held_out"]) >= 10


def test_classes_of_one_text_each_cannot_be_held_out():
    rows = pd.DataFrame({"text": ["a long text", "another text"], "label": ["a", "b"]})
    with pytest.raises(InputError, match=r"2 classes with 2 texts are too few .* --held-out FILE"):
        divide(rows, survey_table(rows, "rows", label_column="label"), hold_out=True)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    rows, path = make_rows(9, seed=1), tmp_path / f"rows.{suffix}"
    rows.loc[0, "text"] = 'a "quoted", broken\nline — «ü»'
    write_table(rows, path)
    assert read_table(str(path), "train").to_dict("list") == rows.to_dict("list")
