import csv
import os
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_tasks.core.errors import InputError
from distill_tasks.data.settings import HubTable
from distill_tasks.data.tables import check_column, read_table

ROWS = pd.DataFrame({"text": ["a cat, asleep", "un «chien»"], "label": ["cats", "dogs"]})


def save_classes(labels, folder):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["cats", "dogs"])})
    texts = [f"row {number}" for number in range(len(labels))]
    Dataset.from_dict({"text": texts, "label": labels}, features).save_to_disk(str(folder))
    return str(folder)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    match suffix:
        case "csv":
            ROWS.to_csv(path, index=False)
        case "parquet":
            ROWS.to_parquet(path)
        case "jsonl":
            ROWS.to_json(path, orient="records", lines=True)
    assert read_table(str(path), "train").to_dict("list") == ROWS.to_dict("list")


def test_a_datasets_folder_gives_class_names(tmp_path):
    frame = read_table(save_classes([1, 0, 1], tmp_path / "rows"), "train")
    assert frame["label"].tolist() == ["dogs", "cats", "dogs"]
    assert frame["text"].tolist() == ["row 0", "row 1", "row 2"]


@pytest.mark.parametrize("unlabelled", [-1, None])
def test_unlabelled_rows_of_a_datasets_folder_stay_without_label(tmp_path, unlabelled):
    frame = read_table(save_classes([1, unlabelled], tmp_path / "rows"), "transfer")
    assert frame["label"][0] == "dogs"
    assert pd.isna(frame["label"][1])


def test_lists_of_classes_in_a_datasets_folder_are_lists_of_names(tmp_path):
    several = Sequence(ClassLabel(names=["cats", "dogs"]))
    features = Features({"text": Value("string"), "label": several})
    rows = {"text": list("abcd"), "label": [[1, 0], [], None, [1, None, -1]]}
    Dataset.from_dict(rows, features).save_to_disk(str(tmp_path / "rows"))
    labels = read_table(str(tmp_path / "rows"), "train")["label"].tolist()
    assert [labels[0], labels[1], labels[3]] == [["dogs", "cats"], [], ["dogs", None, None]]
    assert pd.isna(labels[2])


def test_a_data_set_of_the_hub_is_refused_in_one_line_where_there_is_no_network():
    table = HubTable(hub="nobody/nothing", revision="0" * 40, split="train")
    with pytest.raises(InputError, match=r"data\.train: nobody/nothing cannot be read") as caught:
        read_table(table, "train")
    assert "download it where there is a network" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_several_splits_asks_for_one(tmp_path):
    folder = tmp_path / "rows"
    DatasetDict({"test": Dataset.from_pandas(ROWS)}).save_to_disk(str(folder))
    with pytest.raises(InputError, match="holds several splits") as caught:
        read_table(str(folder), "train")
    assert str(folder / "test") in str(caught.value)
    assert len(read_table(str(folder / "test"), "train")) == 2


def test_any_other_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data\.train: .*save_to_disk"):
        read_table(str(tmp_path), "train")


def test_an_unknown_format_is_answered_with_the_formats(tmp_path):
    path = tmp_path / "rows.xlsx"
    path.touch()
    with pytest.raises(InputError, match=r"data\.held_out: .*\.csv, \.parquet, \.jsonl"):
        read_table(str(path), "held_out")


def test_a_pipe_is_refused_instead_of_waiting_for_its_end(tmp_path):
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(InputError, match="neither a folder nor one of"):
        read_table(str(tmp_path / "rows.csv"), "train")


def test_a_path_that_no_file_can_have_does_not_exist():
    for path in (f"{5000 * 'x'}.csv", "a\0.csv"):
        with pytest.raises(InputError, match="does not exist"):
            read_table(path, "train")


def test_a_missing_file_is_answered_with_its_neighbour(tmp_path):
    (tmp_path / "train.csv").touch()
    with pytest.raises(InputError, match=r"does not exist \(did you mean 'train\.csv'\?\)"):
        read_table(str(tmp_path / "trian.csv"), "train")
    with pytest.raises(InputError, match=r"does not exist\. Paths are relative to"):
        read_table(str(tmp_path / "no" / "such.csv"), "train")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.parquet", b"no parquet"),
        ("rows.parquet", b""),
        ("rows.jsonl", b"{broken"),
        ("rows.csv", b""),
        ("rows.csv", b"text,label\n\xff\xfe,cats\n"),
        ("rows.csv", b"text,label\na,b\nc,d,e,f\n"),
        ("rows.csv", b'text,label\n"never closed,cats\n'),
    ],
)
def test_an_unreadable_file_is_named_with_the_reason(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"cannot be read as {path.suffix}: .+") as caught:
        read_table(str(path), "train")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_words_that_look_like_missing_values_stay_words(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nnull,NA\nNone,EU\n")
    frame = read_table(str(path), "train")
    assert frame.to_dict("list") == {"text": ["null", "None"], "label": ["NA", "EU"]}


def test_a_csv_whose_rows_all_have_a_cell_too_many_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nhello, world,cats\nbye, world,dogs\n")
    with pytest.raises(InputError):
        read_table(str(path), "train")


def test_a_missing_column_is_answered_with_the_nearest():
    check_column(ROWS, "text", "train")
    with pytest.raises(InputError, match=r"no column 'txt' \(did you mean 'text'\?\); it has text"):
        check_column(ROWS, "txt", "train")


def test_rows_without_column_names_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('["a text", "cats"]\n["another", "dogs"]\n')
    with pytest.raises(InputError, match="no column 'text'"):
        check_column(read_table(str(path), "train"), "text", "train")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"text;label\none;cats\n", "its first line, 'text;label', is parted by ';'. Save it with"),
        (b"text;label\none, two;cats\n", "is parted by ';'"),
        (b"text\tlabel\none\tcats\n", r"is parted by '\t'"),
        ("text,label\none,cats\ncafé ’,dogs\n".encode("cp1252"), "line 3 is no UTF-8 but perhaps "),
        ("text,label\ncafé,cats\n".encode("cp1252"), "cp1252, as which it reads 'café,cats'"),
        ("text,label\none,cats\n".encode("utf-16"), "it is UTF-16. Save it as UTF-8"),
        (b'text,label\na,b\n"never,closed\n', "line 3 opens a quote that is never closed"),
    ],
)
def test_a_csv_of_another_kind_is_refused_with_its_cause(tmp_path, content, reason):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.train: .* cannot be read as \.csv: ") as caught:
        read_table(str(path), "train")
    assert reason in str(caught.value)


def test_lines_of_json_in_another_encoding_are_refused_with_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text": "one"}\n{"text": "café"}\n'.encode("cp1252"))
    with pytest.raises(InputError, match="line 2 is no UTF-8 but perhaps cp1252"):
        read_table(str(path), "train")


def write_csv(path, first, last, header="text,label"):
    """Write twenty rows, one of two labels each, two of them as given."""
    lines = [f"text {number},{'cats' if number % 2 else 'dogs'}" for number in range(20)]
    lines[4], lines[11] = first, last
    path.write_text("\n".join([header, *lines, ""]))


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ('"it never came,dogs', '"my password,cats'),  # the second quote ends a cell in its middle
        ('"it never came,dogs', 'it said so",cats'),  # the second one ends it as it should
        ('"it never came, late, lost,dogs', 'my "password",cats'),
    ],
)
def test_a_stray_quote_that_swallows_rows_is_named_with_its_lines(tmp_path, first, last):
    path = tmp_path / "rows.csv"
    write_csv(path, first, last)
    with pytest.raises(InputError) as caught:
        read_table(str(path), "train")
    assert "line 6 opens a quote that is closed in line 13 only: 8 rows would become one" in str(
        caught.value
    )


def test_a_stray_quote_in_a_csv_of_one_column_is_named_too(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text\none\n"two\nthree\n"four\nfive\n')
    with pytest.raises(InputError, match="line 3 opens a quote that is closed in line 5 only"):
        read_table(str(path), "transfer")


@given(
    st.lists(
        st.tuples(
            st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1
            ),
            st.sampled_from(["cats", "dogs"]),
        ),
        min_size=1,
    )
)
@settings(max_examples=60)
def test_texts_that_are_quoted_as_they_should_come_back_whatever_is_in_them(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(path, index=False)
        frame = read_table(str(path), "train")
    assert list(zip(frame["text"], frame["label"], strict=True)) == rows


def test_a_text_of_several_lines_with_commas_is_no_swallowed_row(tmp_path):
    texts = ["Dear cats,\nplease help, dogs,\nthanks, cats", "cats,dogs", 'he said "so", dogs\nyes']
    frame = pd.DataFrame({"text": texts * 3, "label": ["cats", "dogs", "cats"] * 3})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    pd.testing.assert_frame_equal(read_table(str(tmp_path / "rows.csv"), "train"), frame)


def test_a_quote_within_a_text_is_a_character_of_it(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,label\na 5" screen,cats\n"so" he said,dogs\nsize 7",cats\n')
    texts = read_table(str(path), "train")["text"].tolist()
    assert texts == ['a 5" screen', "so he said", 'size 7"']


def test_a_text_longer_than_the_usual_limit_of_a_cell_is_read(tmp_path):
    frame = pd.DataFrame({"text": ["long\n" * 100_000], "label": ["cats"]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    before = csv.field_size_limit()
    assert read_table(str(tmp_path / "rows.csv"), "train")["text"][0] == frame["text"][0]
    assert csv.field_size_limit() == before
