import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from distill_tasks.errors import InputError
from distill_tasks.tables import check_column, read_table

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
