import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import CLASSES, make_rows
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_tasks import served_model
from distill_tasks.corpus import Split
from distill_tasks.served_model import open_model, softmax
from distill_tasks.soft_labels import SoftLabels
from distill_tasks.students import BagOfWordsStudent, LayersStudent, StaticStudent, train_student
from distill_tasks.students.lesson import Lesson, TeacherModel

STUDENTS = {
    "transformers": LayersStudent(layers=1, epochs=8, learning_rate=0.005, batch_rows=16),
    "static": StaticStudent(dimensions=8, epochs=2),
    "bag_of_words": BagOfWordsStudent(max_features=60, ngrams=3),
}
TEXTS = [*make_rows(12, seed=9)["text"], "puppy", "the kitten purr the kitten purr the reef"]
ODD = {
    "empty": "",
    "whitespace": " \t\n  ",
    "emoji": "😀 👩‍👩‍👧 fin",
    "control": "\x00\x07\x1b[31m kitten \x7f",
    "long": "puppy leash " * 1667,
    "one long word": "x" * 20_000,
    "combining": "e\u0301" * 50 + " İstanbul \u202e ﬁn",
}


@pytest.fixture(scope="module")
def lesson(tiny_base):
    rows = make_rows(240, seed=3)
    gold = np.array([CLASSES.index(name) for name in rows["label"]])
    split = Split(tuple(rows["text"]), gold)
    logits = 4 * np.eye(3, dtype=np.float32)[gold]
    return Lesson(
        rows=split,
        soft_labels=SoftLabels(logits, CLASSES, "teacher"),
        validation=split,
        classes=CLASSES,
        temperature=2.0,
        alpha=0.9,
        seed=5,
        teacher=TeacherModel(tiny_base, None, 16),
    )


@pytest.fixture(scope="module")
def folders(lesson, tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in STUDENTS}
    for name, folder in made.items():
        train_student(STUDENTS[name], lesson, folder)
    return made


@pytest.fixture(scope="module", params=STUDENTS)
def model(request, folders):
    return open_model(folders[request.param])


@pytest.fixture(scope="module")
def words(folders):
    return open_model(folders["bag_of_words"])


@pytest.fixture(scope="module")
def vectorizer(lesson):
    made = TfidfVectorizer(ngram_range=(1, 3), max_features=60, sublinear_tf=True, dtype=np.float32)
    return made.fit(lesson.rows.texts)


def test_a_batch_answers_as_one_by_one(model):
    texts = [*TEXTS, *ODD.values()]
    alone = np.concatenate([model.logits([text]) for text in texts])
    np.testing.assert_allclose(model.logits(texts), alone, atol=1e-4)
    assert len({tuple(row) for row in alone.round(3)}) > 5


def test_an_answer_is_the_likeliest_class_of_probabilities_that_sum_to_one(model):
    answers, expected = model.answer(TEXTS), softmax(model.logits(TEXTS))
    for answer, row in zip(answers, expected, strict=True):
        assert list(answer.probabilities) == list(CLASSES)
        np.testing.assert_allclose(list(answer.probabilities.values()), row, atol=1e-5)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer.label == CLASSES[row.argmax()]
        assert answer.confidence == max(answer.probabilities.values())


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", float("nan"), ["nested"]])
def test_what_is_no_text_is_refused_with_its_row(model, wrong):
    with pytest.raises(ValueError, match=r"Row 1 is .*not text"):
        model.answer(["fine", wrong])


def test_no_texts_have_no_answers(model):
    assert model.answer([]) == []


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_odd_texts_are_answered(model, text):
    (answer,) = model.answer([text])
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text(max_size=60), max_size=4))
def test_any_text_is_answered(model, texts):
    assert all(answer.label in CLASSES for answer in model.answer(texts))
    assert len(model.answer(texts)) == len(texts)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text() | st.lists(st.sampled_from(TEXTS)).map(" ".join), min_size=1))
def test_bag_of_words_is_tfidf_times_weights(words, vectorizer, texts):
    expected = vectorizer.transform(texts) @ words.output + words.output_bias
    np.testing.assert_allclose(words.logits(texts), expected, atol=1e-4)


def test_transformers_runtime_answers_as_the_library_does(folders):
    folder, texts = folders["transformers"], [*TEXTS, *ODD.values()]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    cut = {"truncation": True, "max_length": 16, "padding": True, "return_tensors": "pt"}
    with torch.inference_mode():
        expected = model(**tokenizer(texts, **cut)).logits.numpy()
    np.testing.assert_allclose(open_model(folder).logits(texts), expected, atol=1e-5)


@pytest.mark.parametrize("runtime", STUDENTS)
def test_the_file_runs_alone_as_a_script(folders, runtime, tmp_path):
    code = str(Path(served_model.__file__).resolve())
    command = [sys.executable, code, str(folders[runtime]), "the puppy", "fin 😀"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    expected = open_model(folders[runtime]).answer(["the puppy", "fin 😀"])
    assert [answer["label"] for answer in answers] == [answer.label for answer in expected]
    assert set(answers[0]) == {"label", "confidence", "probabilities"}


def test_the_file_imports_nothing_of_this_project():
    tree = ast.parse(Path(served_model.__file__).read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module.split(".")[0])
    assert "numpy" in names
    assert not names & {"distill_tasks", "flows", "registry"}
