import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distill_tasks.core.errors import InputError
from distill_tasks.data.settings import DataConfig, RowFormat, join_fields
from distill_tasks.data.texts import read_tables, read_texts
from distill_tasks.serving.served_model import ServedModel

TWO = RowFormat(text_column=["subject", "body"])
ROWS = pd.DataFrame({"subject": ["Hi", None, ""], "body": ["there", "alone", "too"]})


def test_fields_are_joined_a_line_each_and_empty_ones_leave_none():
    assert read_texts(ROWS, TWO, "train") == ["Hi\nthere", "alone", "too"]


def test_a_template_says_how():
    config = RowFormat(text_column=["subject", "body"], text_template="{body} (re: {subject})")
    assert read_texts(ROWS, config, "train")[:2] == ["there (re: Hi)", "alone (re: )"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"body": ["there", None, ""]}, r"2 texts are empty .* \(row 1, 2"),
        ({"body": ["there", 3, "x"]}, r"first found: 3"),
    ],
)
def test_rows_without_text_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        read_texts(ROWS.assign(**change), TWO, "train")
    with pytest.raises(InputError, match=r"no column 'subject'"):
        read_texts(ROWS[["body"]], TWO, "train")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"text_column": ["a", "a"]}, "names a column twice"),
        ({"text_column": []}, "at least 1"),
        ({"text_column": ["a", "b}"]}, "brace"),
        ({"text_template": "{text}"}, "joins several columns"),
        ({"text_column": ["a", "b"], "text_template": "{a} {c}"}, "names {c}; text_column has a,"),
        ({"text_column": ["a", "b"], "text_template": "{a}"}, "leaves out {b}"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(written, said):
    with pytest.raises(ValidationError, match=said):
        RowFormat(**written)


class Served(ServedModel):
    """A model that reads nothing."""

    def logits(self, texts):
        raise NotImplementedError


@given(st.text(), st.text(), st.sampled_from([None, "{b}: {a}", "{a} {a}{b}", "\\1 {a}{b}"]))
def test_a_served_model_joins_what_training_joined(first, second, template):
    config = RowFormat(text_column=["a", "b"], text_template=template)
    about = {"classes": ["x"], "fields": config.fields, "template": config.template}
    cells = {"a": first, "b": second}
    assert Served("nowhere", about).join(cells) == join_fields(config.template, cells)


def test_several_tables_and_patterns_are_read_as_one(tmp_path):
    for number in range(3):
        frame = pd.DataFrame({"text": [f"row {number}"], f"other{number}": [1]})
        frame.to_csv(tmp_path / f"part{number}.csv", index=False)
    pd.DataFrame({"text": ["last"]}).to_json(tmp_path / "z.jsonl", orient="records", lines=True)
    given = (f"{tmp_path}/part[02].csv", str(tmp_path / "z.jsonl"))
    assert read_tables(given, ["text"], "transfer")["text"].tolist() == ["row 0", "row 2", "last"]
    alone = read_tables(f"{tmp_path}/*1.csv", ["text"], "transfer")
    assert list(alone.columns) == ["text", "other1"]


def test_a_path_that_looks_like_a_pattern_is_a_path_where_it_exists(tmp_path):
    pd.DataFrame({"text": ["a"]}).to_csv(tmp_path / "part[1].csv", index=False)
    assert len(read_tables(str(tmp_path / "part[1].csv"), ["text"], "transfer")) == 1


def test_a_pattern_without_files_and_a_table_without_texts_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"data\.transfer: no file matches .*\*\.csv"):
        read_tables(f"{tmp_path}/*.csv", ["text"], "transfer")
    for name in ("text", "txt"):
        pd.DataFrame({name: ["a"]}).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(InputError, match=r"transfer: .*txt\.csv has no column 'text'"):
        read_tables(f"{tmp_path}/*.csv", ["text"], "transfer")


def test_transfer_may_be_a_list_and_not_an_empty_one():
    several = DataConfig(train="a.csv", held_out="b.csv", transfer=["c.csv", "d*.csv"])
    assert several.transfer == ("c.csv", "d*.csv")
    with pytest.raises(ValidationError):
        DataConfig(train="a.csv", held_out="b.csv", transfer=[])
