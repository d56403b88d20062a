import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from samples import CLASSES, make_gold_set, make_rows
from scipy import special
from sklearn.feature_extraction.text import TfidfVectorizer

from distill_tasks.problems.classification import name_labels
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.serving import served_model, served_text
from distill_tasks.serving.served_model import (
    ABOUT,
    ServedModel,
    open_model,
    sigmoid,
    softmax,
)
from distill_tasks.students import BagOfWordsStudent

TEXTS = [*make_rows(12, seed=9)["text"], "puppy", "the kitten purr the kitten purr the reef"]


@pytest.fixture(scope="module")
def training_set(tiny_base):
    return make_gold_set(tiny_base, 240)


@pytest.fixture(scope="module")
def folder(training_set, tmp_path_factory):
    """The smallest model: what is the same for every runtime is in the contract of runtimes."""
    made = tmp_path_factory.mktemp("words")
    BagOfWordsStudent(max_features=60, ngrams=3).train(training_set, made)
    return made


@pytest.fixture(scope="module")
def words(folder):
    return open_model(folder)


@pytest.fixture(scope="module")
def vectorizer(training_set):
    made = TfidfVectorizer(ngram_range=(1, 3), max_features=60, sublinear_tf=True, dtype=np.float32)
    return made.fit(training_set.rows.texts)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text() | st.lists(st.sampled_from(TEXTS)).map(" ".join), min_size=1))
def test_bag_of_words_is_tfidf_times_weights(words, vectorizer, texts):
    expected = vectorizer.transform(texts) @ words.output + words.output_bias
    np.testing.assert_allclose(words.logits(texts), expected, atol=1e-4)


@pytest.fixture
def describe(folder, tmp_path):
    """Open a copy of the model with changes to its description."""

    def describe(**changes):
        copy = Path(shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True))
        about = json.loads((folder / ABOUT).read_text())
        (copy / ABOUT).write_text(json.dumps(about | changes))
        return open_model(copy)

    return describe


def probabilities_of(answers):
    return np.array([list(answer.probabilities.values()) for answer in answers])


def test_the_temperature_softens_probabilities_and_changes_no_label(describe):
    plain = describe()
    logits = plain.logits(TEXTS)
    for temperature in (0.5, 3.0):
        model = describe(calibration={"temperature": temperature})
        answers = model.answer(TEXTS)
        expected = special.softmax(logits / temperature, axis=1)
        np.testing.assert_allclose(probabilities_of(answers), expected, atol=1e-6)
        np.testing.assert_array_equal(model.logits(TEXTS), logits)
        assert [a.label for a in answers] == [a.label for a in plain.answer(TEXTS)]


@pytest.mark.parametrize("calibration", [{}, Calibration().to_json()])
def test_a_folder_without_calibration_or_problem_answers_as_it_always_did(
    folder, describe, calibration
):
    about = json.loads((folder / ABOUT).read_text())
    assert "calibration" not in about
    model = describe(calibration=calibration)
    (model.folder / ABOUT).write_text(
        json.dumps({key: value for key, value in about.items() if key != "problem"})
    )
    old = open_model(model.folder)
    answers = old.answer(TEXTS)
    np.testing.assert_allclose(
        probabilities_of(answers), special.softmax(old.logits(TEXTS), axis=1), atol=1e-6
    )
    assert not any(answer.abstain for answer in answers)
    assert [a.label for a in model.answer(TEXTS)] == [a.label for a in answers]


def test_of_several_labels_each_is_there_from_its_threshold_on(describe):
    plain = describe(problem="multi_label")
    values = special.expit(plain.logits(TEXTS))
    np.testing.assert_allclose(probabilities_of(plain.answer(TEXTS)), values, atol=1e-6)
    halfway = [float(np.median(column)) for column in values.T]
    for limits in ([0.5] * 3, halfway, [0.0] * 3, [1.0] * 3):
        calibration = {"thresholds": limits} if limits != [0.5] * 3 else {}
        answers = describe(problem="multi_label", calibration=calibration).answer(TEXTS)
        there = values >= limits
        assert [a.label for a in answers] == ["|".join(np.array(CLASSES)[row]) for row in there]
        sure = np.where(there, values, 1 - values).prod(axis=1)
        np.testing.assert_allclose([a.confidence for a in answers], sure, rtol=1e-4, atol=1e-7)


# Ties are exact or clear: what float32 cannot tell apart is no matter of calibration.
numbers = arrays(np.float32, (4, 3), elements=st.integers(-300, 300).map(lambda n: n / 10))


class Told(ServedModel):
    """A model whose logits are given."""

    def logits(self, texts):
        return self.told[: len(texts)]


@settings(deadline=None, max_examples=60)
@given(
    numbers,
    st.sampled_from(["single_label", "multi_label"]),
    st.floats(0.05, 20),
    st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3),
)
def test_served_answers_are_those_that_were_scored(logits, problem, temperature, thresholds):
    calibration = Calibration(temperature, thresholds if problem == "multi_label" else None, 0.7)
    about = {"classes": CLASSES, "problem": problem, "calibration": calibration.to_json()}
    model = Told("nowhere", about)
    model.told = logits
    answers = model.answer(["text"] * 4)
    borderline = special.expit(logits / temperature)[:, :, None] - np.array([*thresholds])
    assume(np.abs(borderline).min() > 1e-5)
    said, sure = (f(logits, problem) for f in (calibration.decide, calibration.confidence))
    assert [answer.label for answer in answers] == name_labels(said, CLASSES)
    np.testing.assert_allclose([answer.confidence for answer in answers], sure, atol=1e-5)
    assume(np.abs(sure - 0.7).min() > 1e-5)
    assert [answer.abstain for answer in answers] == (sure < 0.7).tolist()
    asked = model.answer(["text"] * 4, top_k=1, threshold=0.0)
    assert [answer.label for answer in asked] == [answer.label for answer in answers]
    for answer, whole in zip(asked, answers, strict=True):
        ((name, likeliest),) = answer.probabilities.items()
        assert likeliest == whole.probabilities[name] == max(whole.probabilities.values())
        assert not answer.abstain


@settings(deadline=None, max_examples=40)
@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_softmax_and_sigmoid_are_those_of_scipy(logits):
    np.testing.assert_allclose(softmax(logits), special.softmax(logits, axis=1), atol=1e-6)
    np.testing.assert_allclose(sigmoid(logits), special.expit(logits), atol=1e-6)


@pytest.mark.parametrize("code", [served_model, served_text])
def test_the_files_import_nothing_of_this_project_but_each_other(code):
    tree = ast.parse(Path(code.__file__).read_text(encoding="utf-8"))
    names, beside = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            beside |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names & {"numpy", "tokenizers"}
    assert beside <= {"served_text"}
    assert not names & {"distill_tasks", "flows", "registry"}


def test_the_files_can_be_imported_from_wherever_they_lie(folder, tmp_path):
    for code in (served_model, served_text):
        shutil.copy(code.__file__, tmp_path)
    program = (
        "import sys; from served_model import open_model as o; print(o(sys.argv[1]).answer(['a']))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[Answer(")
