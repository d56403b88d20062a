import json
import shutil

import numpy as np
import pandas as pd
import pytest
from samples import make_rows

from distill_tasks.core.errors import InputError
from distill_tasks.data.settings import RowFormat
from distill_tasks.serving.served_model import open_model
from distill_tasks.students.folder import describe_fields
from registry.predict import predict_file


@pytest.fixture(scope="module")
def model(light_folders):
    return open_model(light_folders["bag_of_words"])


@pytest.fixture
def fields(light_folders, tmp_path):
    """A copy of the model that reads two fields."""
    folder = shutil.copytree(light_folders["bag_of_words"], tmp_path / "model")
    describe_fields(folder, RowFormat(text_column=["subject", "body"]))
    return open_model(folder)


ROWS = make_rows(40, seed=6)


def test_each_row_gets_what_the_model_says_of_its_text(model, tmp_path):
    ROWS.rename(columns={"label": "gold"}).to_csv(tmp_path / "in.csv", index=False)
    done = predict_file(model, tmp_path / "in.csv", tmp_path / "out.csv")
    found, said = pd.read_csv(tmp_path / "out.csv"), model.answer(list(ROWS["text"]))
    assert (done.rows, done.empty, done.abstained) == (40, 0, 0)
    assert list(found.columns) == ["text", "gold", "label", "confidence", "abstain"]
    assert found["gold"].tolist() == ROWS["label"].tolist()
    assert found["label"].tolist() == [answer.label for answer in said]
    np.testing.assert_allclose(found["confidence"], [a.confidence for a in said], rtol=1e-6)


def test_columns_of_the_file_keep_their_names_where_answers_have_the_same(model, tmp_path):
    ROWS.to_parquet(tmp_path / "in.parquet", index=False)
    done = predict_file(model, tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert done.columns == ("predicted_label", "predicted_confidence", "predicted_abstain")
    assert list(found.columns) == ["text", "label", *done.columns]
    assert found["label"].tolist() == ROWS["label"].tolist()
    assert (found.dtypes[done.columns[1]], found.dtypes[done.columns[2]]) == (float, bool)
    with pytest.raises(InputError, match=r"has the columns predicted_abstain, .* already"):
        predict_file(model, tmp_path / "out.parquet", tmp_path / "again.parquet")


def test_a_row_without_a_text_has_no_label_and_stops_nothing(model, tmp_path):
    texts = ['"purr"', '"half \\ud800"', "3", "null", '" "']
    lines = [f'{{"text": {text}}}' for text in texts] + ["", '{"other": 1}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    done = predict_file(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (done.rows, done.empty) == (6, 5)
    assert [row["label"] for row in found] == ["cats", *[None] * 5]
    assert [row["abstain"] for row in found] == [False, *[True] * 5]


def test_fields_are_taken_by_name_or_as_one_text(fields, tmp_path):
    (tmp_path / "in.csv").write_text("body,subject\nkitten,purr\nfin gill,\n")
    (tmp_path / "joined.csv").write_text('text\n"purr\nkitten"\nfin gill\n')
    said = []
    for name in ("in.csv", "joined.csv"):
        predict_file(fields, tmp_path / name, tmp_path / f"out-{name}")
        said.append(pd.read_csv(tmp_path / f"out-{name}")["confidence"].tolist())
    assert said[0] == said[1]
    joined = fields.answer([{"subject": "purr", "body": "kitten"}, "fin gill"])
    np.testing.assert_allclose(said[0], [answer.confidence for answer in joined], rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "named", "said"),
    [
        ("id,txt\n1,a\n", (), r"no column 'text' \(did you mean 'txt'\?\); it has id, txt"),
        ("id,txt\n1,a\n", ("body",), "no column 'body'"),
        ("id,text\n1,\n", (), "no text in 'text' of its first 1 rows"),
    ],
)
def test_a_file_without_the_texts_is_refused_and_nothing_written(
    model, tmp_path, content, named, said
):
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        predict_file(model, tmp_path / "in.csv", tmp_path / "out.csv", named)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_the_only_column_needs_no_name(model, tmp_path):
    (tmp_path / "in.csv").write_text("review\npurr\n")
    assert predict_file(model, tmp_path / "in.csv", tmp_path / "out.csv").empty == 0
