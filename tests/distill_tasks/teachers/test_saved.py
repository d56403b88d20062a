from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from samples import CLASSES

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Rank
from distill_tasks.data.settings import RowFormat
from distill_tasks.stages.prepare import check_config
from distill_tasks.teachers import saved
from distill_tasks.teachers.base import ONE_HOT
from distill_tasks.teachers.saved import SavedTeacher


def write_answers(folder, **changes):
    values = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    columns = {"text": ["one", "two"], **dict(zip(CLASSES, values.T, strict=True)), **changes}
    given = {key: value for key, value in columns.items() if value is not None}
    pd.DataFrame(given).to_parquet(folder / "answers.parquet")
    return str(folder / "answers.parquet")


def test_saved_probabilities_come_back_by_softmax_in_the_order_of_the_data(tmp_path):
    teacher = SavedTeacher(path=write_answers(tmp_path))
    order = ("fish", "cats", "dogs")
    texts, logits, classes = saved.read_answers(teacher, RowFormat(), order)
    probabilities = torch.softmax(torch.from_numpy(logits), dim=1)
    assert (texts, classes) == (["one", "two"], order)
    np.testing.assert_allclose(probabilities, [[0.25, 0.5, 0.25], [0, 0, 1]], atol=1e-5)


def test_saved_logits_come_back_as_they_were(tmp_path):
    path = write_answers(tmp_path, cats=[3.5, -1.0])
    _, logits, classes = saved.read_answers(
        SavedTeacher(path=path, values="logits"), RowFormat(), None
    )
    assert classes == CLASSES
    np.testing.assert_array_equal(logits, np.float32([[3.5, 0.25, 0.25], [-1, 1, 0]]))


@pytest.mark.parametrize(
    ("changes", "values", "said"),
    [
        ({"dogs": [0.25, np.nan]}, "logits", r"NaN .* 1 rows \(row 1\)"),
        ({"dogs": [0.25, 1e39]}, "logits", r"infinite values in 1 rows \(row 1\)"),
        ({"dogs": [np.inf, np.nan]}, "probabilities", r"2 rows \(row 0, 1\)"),
        ({"dogs": [0.25, 0.9]}, "probabilities", r"sum to one in 1 rows \(row 1\)"),
        ({"cats": [-0.5, 0.0], "dogs": [1.25, 1.0]}, "probabilities", r"\(row 0\)"),
        ({"dogs": None}, "probabilities", "cats, fish; the data has cats, dogs, fish"),
        ({"text": None}, "probabilities", "no column 'text'"),
        ({"dogs": ["much", "little"]}, "probabilities", "no numbers"),
    ],
)
def test_broken_saved_answers_are_refused(tmp_path, changes, values, said):
    teacher = SavedTeacher(path=write_answers(tmp_path, **changes), values=values)
    with pytest.raises(InputError, match=said):
        saved.read_answers(teacher, RowFormat(), CLASSES)


def write_twice(folder, first, second):
    """Two answers to `one`, as rows 0 and 2, and one to `two`."""
    values = zip(first, [0.1, 0.8, 0.1], second, strict=True)
    columns = dict(zip(CLASSES, values, strict=True))
    return write_answers(folder, text=["one", "two", "one"], **columns)


def test_saved_answers_that_contradict_each_other_are_refused_with_their_rows(tmp_path):
    path = write_twice(tmp_path, [0.9, 0.05, 0.05], [0.05, 0.9, 0.05])
    with pytest.raises(InputError, match=r"two different answers to 1 texts \(row 0 and 2\)"):
        saved.read_answers(SavedTeacher(path=path), RowFormat(), CLASSES)


def test_saved_answers_that_are_given_twice_are_one(tmp_path):
    path = write_twice(tmp_path, [0.9, 0.05, 0.05], [0.901, 0.049, 0.05])
    assert saved.read_answers(SavedTeacher(path=path), RowFormat(), CLASSES)[0] == [
        "one",
        "two",
        "one",
    ]


@pytest.mark.parametrize(
    ("problem", "values", "said"),
    [
        ("single_label", [[0.9, 0.05, 0.05], [0, 1, 0]], True),
        ("single_label", [[0.9, 0.5, 0.05], [0, 1, 0]], False),
        ("single_label", [[2.0, -1.5, 0.5], [0, 1, 0]], False),
        ("multi_label", [[0.9, 0.5, 0.05], [0, 1, 1]], True),
        ("multi_label", [[0.9, 0.5, -0.05], [0, 1, 1]], False),
    ],
)
def test_logits_that_look_like_probabilities_are_told(problem, values, said):
    logits = np.float32(values)
    found = saved.find_probabilities(SavedTeacher(path="p", values="logits"), logits, problem)
    assert ["look like probabilities" in one.text for one in found] == [True][:said]
    assert {one.rank for one in found} <= {Rank.ACT}
    assert saved.find_probabilities(SavedTeacher(path="p"), logits, problem) == []


def test_check_tells_of_probabilities_declared_as_logits(written, data_folder, tmp_path):
    frames = [pd.read_parquet(path) for path in data_folder.glob("*.parquet")]
    texts = pd.concat(frames)["text"].tolist()
    path = write_answers(tmp_path, text=texts, **dict.fromkeys(CLASSES, [1 / 3] * len(texts)))
    written["teacher"] = {"kind": "saved", "path": path, "values": "logits"}
    written["students"] = [{"family": "bag_of_words"}]
    corpus = check_config(parse_config(written, "test"))
    assert "look like probabilities" in corpus.findings[-1].text


def test_saved_probabilities_of_several_labels_need_not_sum_to_one(tmp_path):
    columns = {"cats": [0.9, 0.0], "dogs": [0.8, 0.5], "fish": [0.0, 1.0]}
    teacher = SavedTeacher(path=write_answers(tmp_path, **columns))
    with pytest.raises(InputError, match="sum to one in 2 rows"):
        saved.read_answers(teacher, RowFormat(), CLASSES)
    _, logits, _ = saved.read_answers(teacher, RowFormat(), CLASSES, "multi_label")
    assert np.isfinite(logits).all()
    probabilities = torch.sigmoid(torch.from_numpy(logits))
    np.testing.assert_allclose(probabilities, [[0.9, 0.8, 0], [0, 0.5, 1]], atol=1e-5)


@pytest.mark.parametrize("dogs", [[1.2, 0.5], [-0.1, 0.5]])
def test_what_is_no_probability_of_several_labels_is_refused(tmp_path, dogs):
    teacher = SavedTeacher(path=write_answers(tmp_path, dogs=dogs))
    with pytest.raises(InputError, match=r"no probabilities in 1 rows \(row 0\)"):
        saved.read_answers(teacher, RowFormat(), CLASSES, "multi_label")


def test_saved_digest_sees_file_values_and_problem(tmp_path, corpus):
    path = write_answers(tmp_path)
    several = replace(corpus, problem="multi_label")
    logits = SavedTeacher(path=path, values="logits")
    before = SavedTeacher(path=path).digest(corpus, 0, balanced=False)
    others = [(logits, corpus), (SavedTeacher(path=path), several)]
    found = [teacher.digest(rows, 0, balanced=False) for teacher, rows in others]
    write_answers(tmp_path, cats=[0.4, 0.0])
    found.append(SavedTeacher(path=path).digest(corpus, 0, balanced=False))
    assert len({before, *found}) == 4


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_saved_answers_that_cannot_be_read_are_refused(tmp_path, content):
    path = tmp_path / "answers.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"answers\.parquet"):
        saved.read_answers(SavedTeacher(path=str(path)), RowFormat(), None)


def test_saved_answers_that_lack_rows_of_the_data_are_refused(written, data_folder, tmp_path):
    texts = pd.read_parquet(data_folder / "train.parquet")["text"].tolist()
    path = write_answers(tmp_path, text=texts, **dict.fromkeys(CLASSES, [1 / 3] * len(texts)))
    written["teacher"] = {"kind": "saved", "path": path}
    written["students"] = [{"family": "bag_of_words"}]
    with pytest.raises(InputError, match="lack 100 rows of held_out"):
        check_config(parse_config(written, "test"))


@pytest.mark.parametrize(("sure", "told"), [(1.0, True), (0.98, False)])
def test_check_tells_of_saved_answers_that_are_hard_labels(
    written, data_folder, tmp_path, sure, told
):
    frames = [pd.read_parquet(path) for path in data_folder.glob("*.parquet")]
    texts = pd.concat(frames)["text"].tolist()
    rest = (1 - sure) / 2
    path = write_answers(tmp_path, text=texts, cats=sure, dogs=rest, fish=rest)
    written["teacher"] = {"kind": "saved", "path": path}
    written["students"] = [{"family": "bag_of_words"}]
    assert (ONE_HOT in check_config(parse_config(written, "test")).findings) is told


def write_labels(path, **columns):
    frame = pd.DataFrame({"text": ["one", "two", "three"], "note": ["x", "y", "z"]} | columns)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    return SavedTeacher(path=str(path), label_column="llm")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_labels_are_read_as_one_hot_and_other_columns_ignored(tmp_path, suffix):
    teacher = write_labels(tmp_path / f"said{suffix}", llm=["dogs", None, "cats"])
    texts, logits, classes = saved.read_answers(teacher, RowFormat(), CLASSES)
    assert (texts, classes) == (["one", "three"], CLASSES)
    probabilities = torch.softmax(torch.from_numpy(logits), dim=1)
    np.testing.assert_allclose(probabilities, [[0, 1, 0], [1, 0, 0]], atol=1e-5)
    assert saved.read_answers(teacher, RowFormat(), None)[2] == ("cats", "dogs")


def test_several_labels_are_read_as_the_gold_is(tmp_path):
    teacher = write_labels(tmp_path / "said.csv", llm=["dogs;cats", "fish", "cats"])
    columns = RowFormat(label_separator=";")
    _, logits, _ = saved.read_answers(teacher, columns, CLASSES, "multi_label")
    np.testing.assert_array_equal(logits > 0, [[1, 1, 0], [0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("llm", "said"),
    [
        (["dgos", "cats", "cats"], r"label 'dgos' \(did you mean 'dogs'\?\), which is no class"),
        ([["cats"], ["dogs"], ["fish"]], "lists of labels"),
    ],
)
def test_labels_that_the_data_does_not_have_are_refused(tmp_path, llm, said):
    with pytest.raises(InputError, match=said):
        saved.read_answers(write_labels(tmp_path / "a.jsonl", llm=llm), RowFormat(), CLASSES)


def test_a_missing_label_column_and_two_labels_of_one_text_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no column 'llm' \(did you mean 'lm'\?\)"):
        saved.read_answers(write_labels(tmp_path / "a.csv", lm=["a"] * 3), RowFormat(), CLASSES)
    twice = write_labels(tmp_path / "b.csv", text=["a", "a", "b"], llm=["cats", "dogs", "cats"])
    with pytest.raises(InputError, match=r"two different answers to 1 texts \(row 0 and 1\)"):
        saved.read_answers(twice, RowFormat(), CLASSES)


def test_a_run_learns_from_labels_in_its_own_rows_and_says_that_they_are_one_hot(
    written, data_folder, tmp_path
):
    names = ("train", "transfer", "held_out")
    frames = [pd.read_parquet(data_folder / f"{name}.parquet") for name in names]
    texts = pd.concat(frames)["text"].tolist()
    said = ["dogs" if "bark" in text or "puppy" in text else "cats" for text in texts]
    answers = pd.DataFrame({"text": texts, "llm": said})
    answers.to_csv(tmp_path / "said.csv", index=False)
    teacher = {"kind": "saved", "path": str(tmp_path / "said.csv"), "label_column": "llm"}
    students = [{"family": "bag_of_words", "max_features": 50}]
    config = parse_config(written | {"teacher": teacher, "students": students}, "test")
    corpus = check_config(config)
    assert ONE_HOT in corpus.findings
    assert corpus.classes == CLASSES  # the teacher never said fish
    other = SavedTeacher(path=teacher["path"], label_column="text")
    assert config.teacher.digest(corpus, 0, False) != other.digest(corpus, 0, False)


def test_fields_tie_answers_to_rows(tmp_path):
    path = tmp_path / "said.csv"
    pd.DataFrame({"a": ["x"], "b": ["y"], "cats": ["0.5"], "dogs": ["0.5"]}).to_csv(path)
    frame = pd.read_csv(path, index_col=0)
    frame.to_csv(path, index=False)
    columns = RowFormat(text_column=["a", "b"])
    texts, logits, classes = saved.read_answers(SavedTeacher(path=str(path)), columns, None)
    assert (texts, classes) == (["x\ny"], ("cats", "dogs"))
    np.testing.assert_allclose(logits, np.log([[0.5, 0.5]]), atol=1e-6)
