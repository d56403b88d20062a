import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from samples import CLASSES, make_gold_set, make_rows
from scipy import special
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_tasks.problems.classification import name_labels
from distill_tasks.scoring.calibration import NEVER, Calibration
from distill_tasks.serving import served_model, served_text
from distill_tasks.serving.served_model import (
    ABOUT,
    GRAPH,
    ServedModel,
    open_model,
    sigmoid,
    softmax,
)
from distill_tasks.students import BagOfWordsStudent, LayersStudent, StaticStudent
from distill_tasks.students.formats import export_variant

STUDENTS = {
    "transformers": LayersStudent(layers=1, epochs=8, learning_rate=0.005, batch_rows=16),
    "static": StaticStudent(dimensions=8, epochs=2),
    "bag_of_words": BagOfWordsStudent(max_features=60, ngrams=3),
}
EXPORTED = ("onnx", "onnx_int8")
RUNTIMES = (*STUDENTS, *EXPORTED)
TEXTS = [*make_rows(12, seed=9)["text"], "puppy", "the kitten purr the kitten purr the reef"]
ODD = {
    "empty": "",
    "whitespace": " \t\n  ",
    "emoji": "😀 👩‍👩‍👧 fin",
    "control": "\x00\x07\x1b[31m kitten \x7f",
    "long": ("puppy leash " * 8334)[:100_000],
    "one long word": "x" * 100_000,
    "combining": "e\u0301" * 50 + " İstanbul \u202e ﬁn",
}


@pytest.fixture(scope="module")
def training_set(tiny_base):
    return make_gold_set(tiny_base, 240)


@pytest.fixture(scope="module")
def folders(training_set, tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in RUNTIMES}
    for name, student in STUDENTS.items():
        student.train(training_set, made[name])
    graph = None
    for name in EXPORTED:
        export_variant(made["transformers"], name, graph, [], made[name])
        graph = made["onnx"] / GRAPH
    return made


@pytest.fixture(scope="module")
def models(folders):
    return {name: open_model(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module", params=RUNTIMES)
def model(request, models):
    return models[request.param]


@pytest.fixture(scope="module")
def words(folders):
    return open_model(folders["bag_of_words"])


@pytest.fixture(scope="module")
def vectorizer(training_set):
    made = TfidfVectorizer(ngram_range=(1, 3), max_features=60, sublinear_tf=True, dtype=np.float32)
    return made.fit(training_set.rows.texts)


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


def hear(model, texts):
    """What a model says of texts: a label for each, or why it refuses."""
    try:
        answers = model.answer(texts)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    assert len(answers) == len(texts)
    for answer in answers:
        assert answer.label in CLASSES
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    return "answered"


HALF = "half a \ud83d"
GIVEN = {
    "no texts": ([], "answered"),
    "empty": ([""], "answered"),
    "100,000 characters": (["puppy", ODD["long"], ODD["one long word"]], "answered"),
    "emoji": ([ODD["emoji"]], "answered"),
    "control": ([ODD["control"], "\x00"], "answered"),
    "surrogate": (["fine", HALF], "ValueError: Row 1 holds half a character"),
    "none": ([None], "ValueError: Row 0 is None, not text"),
    "number": (["fine", "fine", 3], "ValueError: Row 2 is 3, not text"),
    "one string": ("purr kitten", "ValueError: One text was given alone"),
    "none for a list": (None, "ValueError: None is no list of texts. Give a list of strings."),
    "a number for a list": (3, "ValueError: 3 is no list of texts. Give a list of strings."),
}


@pytest.mark.parametrize(("texts", "expected"), GIVEN.values(), ids=GIVEN.keys())
def test_every_runtime_answers_or_refuses_with_the_same_words(models, texts, expected):
    (heard,) = {hear(model, texts) for model in models.values()}
    assert heard.startswith(expected)


hostile = st.one_of(
    st.text(max_size=60),
    st.sampled_from([*TEXTS, *ODD.values()]),
    st.text(st.characters(categories=["Cs", "Cc", "So"]), max_size=5),
    st.sampled_from([None, 3, float("inf"), b"bytes", ["nested"]]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(hostile, max_size=4) | st.text())
def test_whatever_is_given_every_runtime_answers_it_or_none_does(models, texts):
    assert len({hear(model, texts) for model in models.values()}) == 1


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_answer_does_not_depend_on_its_neighbours_at_all(models, name):
    texts = [*TEXTS, *ODD.values()]
    alone = np.concatenate([models[name].logits([text]) for text in texts])
    np.testing.assert_array_equal(models[name].logits(texts), alone)
    np.testing.assert_array_equal(models[name].logits(texts[::-1]), alone[::-1])


@settings(deadline=None, max_examples=30)
@given(
    texts=st.lists(st.lists(st.sampled_from(TEXTS), max_size=3).map(" ".join), min_size=1),
    name=st.sampled_from(EXPORTED),
)
def test_the_first_of_any_texts_is_answered_as_if_it_were_alone(models, texts, name):
    both = models[name].logits(texts)[0], models[name].logits(texts[:1])[0]
    np.testing.assert_array_equal(*both)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=40) | st.sampled_from([*TEXTS, *ODD.values()]), min_size=1))
def test_an_onnx_graph_has_the_logits_of_torch(models, texts):
    theirs = models["transformers"].logits(texts)
    np.testing.assert_allclose(models["onnx"].logits(texts), theirs, atol=1e-3)


def test_int8_says_nearly_what_float32_says(models):
    texts = list(make_rows(60, seed=11)["text"])
    exact, rounded = (models[name].logits(texts) for name in EXPORTED)
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.ptp(exact)
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.95


@pytest.mark.parametrize(
    "threads",
    ["1", "2", "0", "", "2,1"],
)
def test_every_number_of_threads_that_openmp_allows_is_allowed(folders, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert open_model(folders["onnx"]).answer(["the puppy"])


OPENED = """
import sys
from distill_tasks.serving.served_model import open_model

open_model(sys.argv[1]).answer(["the puppy", ""])
print(*{name.split(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "transformers"])
def test_a_light_runtime_imports_nothing_heavy(folders, runtime, tmp_path):
    command = [sys.executable, "-P", "-c", OPENED, str(folders[runtime])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    imported = set(done.stdout.split())
    assert ("onnxruntime" in imported) == (runtime in EXPORTED)
    heavy = {"torch", "transformers", "onnx", "onnxscript", "sklearn", "scipy", "pandas", "mlflow"}
    assert not imported & heavy


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text() | st.lists(st.sampled_from(TEXTS)).map(" ".join), min_size=1))
def test_bag_of_words_is_tfidf_times_weights(words, vectorizer, texts):
    expected = vectorizer.transform(texts) @ words.output + words.output_bias
    np.testing.assert_allclose(words.logits(texts), expected, atol=1e-4)


@pytest.fixture
def describe(folders, tmp_path):
    """Open a copy of the smallest model with changes to its description."""

    def describe(**changes):
        folder = Path(
            shutil.copytree(folders["bag_of_words"], tmp_path / "copy", dirs_exist_ok=True)
        )
        about = json.loads((folders["bag_of_words"] / ABOUT).read_text())
        (folder / ABOUT).write_text(json.dumps(about | changes))
        return open_model(folder)

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


def test_below_the_confidence_to_answer_from_the_model_abstains(describe):
    sure = [answer.confidence for answer in describe().answer(TEXTS)]
    limit = sorted(sure)[len(sure) // 2]
    answers = describe(calibration={"answer_from": limit}).answer(TEXTS)
    assert [answer.abstain for answer in answers] == [value < limit for value in sure]
    assert {answer.abstain for answer in answers} == {True, False}
    never = describe(calibration={"answer_from": NEVER}).answer(TEXTS)
    assert all(answer.abstain for answer in never)
    assert [answer.label for answer in never] == [answer.label for answer in answers]


@pytest.mark.parametrize("calibration", [{}, Calibration().to_json()])
def test_a_folder_without_calibration_or_problem_answers_as_it_always_did(
    folders, describe, calibration
):
    about = json.loads((folders["bag_of_words"] / ABOUT).read_text())
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


@settings(deadline=None, max_examples=40)
@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_softmax_and_sigmoid_are_those_of_scipy(logits):
    np.testing.assert_allclose(softmax(logits), special.softmax(logits, axis=1), atol=1e-6)
    np.testing.assert_allclose(sigmoid(logits), special.expit(logits), atol=1e-6)


def test_transformers_runtime_answers_as_the_library_does(folders):
    folder, texts = folders["transformers"], [*TEXTS, *ODD.values()]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    cut = {"truncation": True, "max_length": 16, "padding": True, "return_tensors": "pt"}
    with torch.inference_mode():
        expected = model(**tokenizer(texts, **cut)).logits.numpy()
    np.testing.assert_allclose(open_model(folder).logits(texts), expected, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_file_runs_alone_as_a_script(folders, runtime, tmp_path):
    code = str(Path(served_model.__file__).resolve())
    command = [sys.executable, code, str(folders[runtime]), "the puppy", "fin 😀"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    expected = open_model(folders[runtime]).answer(["the puppy", "fin 😀"])
    assert [answer["label"] for answer in answers] == [answer.label for answer in expected]
    assert set(answers[0]) == {"label", "confidence", "probabilities", "abstain"}


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


def test_the_files_can_be_imported_from_wherever_they_lie(folders, tmp_path):
    for code in (served_model, served_text):
        shutil.copy(code.__file__, tmp_path)
    program = (
        "import sys; from served_model import open_model as o; print(o(sys.argv[1]).answer(['a']))"
    )
    command = [sys.executable, "-c", program, str(folders["bag_of_words"])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[Answer(")
