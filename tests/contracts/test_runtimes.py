"""What every runtime keeps to: torch, numpy, ONNX and ONNX in int8.

It reads and answers as the student as trained, whatever the tokenizer's own ways are, and whatever
it is given.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from samples import CLASSES, FILLERS, WORDS, make_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_tasks.core.errors import PotstillError
from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.scoring.calibration import NEVER
from distill_tasks.serving import served_model
from distill_tasks.serving.served_model import ABOUT, GRAPH, open_model, softmax
from distill_tasks.students import (
    BagOfWordsStudent,
    LayersStudent,
    PretrainedStudent,
    StaticStudent,
)
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.folder import check_reading, check_served
from distill_tasks.students.formats import export_variant
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective
from distill_tasks.training.tokens import encode, pick_rows

MAX_LENGTH = 8
EXPORTED = ("onnx", "onnx_int8")
TORCH = ("layers", "pretrained")
LIGHT = ("static", "bag_of_words", *EXPORTED)
WITH_TOKENS = (*TORCH, "static", *EXPORTED)
SERVED = (*TORCH, *LIGHT)
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


def make_dialogues(side, count, seed):
    """Return texts of which one end speaks of their class and the other of the next one."""
    generator = np.random.default_rng(seed)
    gold, texts = generator.integers(0, 3, count), []
    for label in gold:
        tells, misleads = CLASSES[label], CLASSES[(label + 1) % 3]
        end = [*generator.choice(WORDS[misleads], 5), *generator.choice(FILLERS, 8)]
        words = [*end, *generator.choice(WORDS[tells], 8)]
        texts.append(" ".join(words if side == "left" else words[::-1]))
    return Split(tuple(texts), gold)


@pytest.fixture(scope="module")
def serve(once, tiny_base):
    """Return what is served of a base whose tokenizer cuts on one side, made once."""

    def serve(side):
        folder = once(f"served-{side}", lambda folder: make_served(side, tiny_base, folder))
        folders = {name: folder / name for name in SERVED}
        validation = make_dialogues(side, 40, 2)
        base = folder / "base"
        return SimpleNamespace(side=side, base=base, folders=folders, validation=validation)

    return serve


def make_served(side, tiny_base, folder):
    """Train students of every family, and export the transformer."""
    base = shutil.copytree(tiny_base, folder / "base")
    AutoTokenizer.from_pretrained(base, truncation_side=side).save_pretrained(base)
    rows, validation = make_dialogues(side, 150, 1), make_dialogues(side, 40, 2)
    training_set = TrainingSet(
        rows,
        SoftLabels(4 * np.eye(3, dtype=np.float32)[rows.gold], CLASSES, "teacher"),
        validation,
        CLASSES,
        Objective(2.0, 0.9),
        5,
        Checkpoint(base, None, MAX_LENGTH),
    )
    distilled = {"epochs": 12, "learning_rate": 0.005, "batch_rows": 16, "freeze_embeddings": False}
    students = {
        "layers": LayersStudent(layers=1, **distilled),
        "pretrained": PretrainedStudent(model=str(base), **distilled),
        "static": StaticStudent(dimensions=8, epochs=8),
        "bag_of_words": BagOfWordsStudent(max_features=60),
    }
    folders = {name: folder / name for name in SERVED}
    for name, made in folders.items():
        made.mkdir()
        if name in students:
            students[name].train(training_set, made)
    graph = None
    for name in EXPORTED:
        export_variant(folders["layers"], name, graph, [], folders[name])
        graph = folders["onnx"] / GRAPH


@pytest.fixture(params=["left", "right"])
def served(request, serve):
    """Everything that is served, of either side."""
    return serve(request.param)


@pytest.fixture(scope="module")
def folders(serve):
    return serve("right").folders


@pytest.fixture(scope="module")
def models(folders):
    return {name: open_model(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module", params=SERVED)
def model(request, models):
    return models[request.param]


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_every_runtime_reads_the_side_that_was_taught(served, name):
    model, texts = open_model(served.folders[name]), served.validation.texts
    said = model.logits(texts).argmax(axis=1)
    assert np.mean(said == served.validation.gold) > 0.9
    other = [" ".join(text.split()[::-1]) for text in texts]
    by_chance = np.mean(model.logits(other).argmax(axis=1) == served.validation.gold)
    assert by_chance < 0.5  # of three classes


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_the_tokens_are_those_of_the_library(served, name):
    tokenizer = AutoTokenizer.from_pretrained(served.base)
    assert tokenizer.truncation_side == served.side
    texts = [*served.validation.texts, "", "purr", "purr " * 5_000]
    whole = {"truncation": True, "max_length": MAX_LENGTH, "add_special_tokens": name != "static"}
    expected = [tokenizer(text, **whole)["input_ids"] or [0] for text in texts]
    assert open_model(served.folders[name]).token_ids(texts) == expected


def answer_plainly(folder, texts):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cut = {"truncation": True, "max_length": MAX_LENGTH, "padding": True, "return_tensors": "pt"}
    with torch.inference_mode():
        return model(**tokenizer(list(texts), **cut)).logits.numpy()


@pytest.mark.parametrize(
    ("name", "close"), [("layers", 1e-5), ("pretrained", 1e-5), ("onnx", 1e-3)]
)
def test_the_logits_are_those_of_the_library(served, name, close):
    source = served.folders["layers" if name == "onnx" else name]
    texts = [*served.validation.texts, "purr", "fin reef", *ODD.values()]
    found = open_model(served.folders[name]).logits(texts)
    np.testing.assert_allclose(found, answer_plainly(source, texts), atol=close)


def test_rows_are_padded_on_the_side_of_the_tokenizer(served, tmp_path):
    """What a batch says then follows from the tokenizer, right or wrong, as in training."""
    folder = shutil.copytree(served.folders["layers"], tmp_path / "left")
    texts = ["purr", *served.validation.texts[:3]]
    before = open_model(folder).logits(texts)
    AutoTokenizer.from_pretrained(folder, padding_side="left").save_pretrained(folder)
    after = open_model(folder).logits(texts)
    np.testing.assert_allclose(after, answer_plainly(folder, texts), atol=1e-5)
    assert np.abs(before[0] - after[0]).max() > 1e-3


# Whatever is given


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
    theirs = models["layers"].logits(texts)
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


@pytest.mark.parametrize("runtime", LIGHT)
def test_a_light_runtime_imports_nothing_heavy(folders, runtime, tmp_path):
    command = [sys.executable, "-P", "-c", OPENED, str(folders[runtime])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    imported = set(done.stdout.split())
    assert ("onnxruntime" in imported) == (runtime in EXPORTED)
    heavy = {"torch", "transformers", "onnx", "onnxscript", "sklearn", "scipy", "pandas", "mlflow"}
    assert not imported & heavy


@pytest.mark.parametrize("runtime", [name for name in SERVED if name != "pretrained"])
def test_the_file_runs_alone_as_a_script(folders, runtime, tmp_path):
    code = str(Path(served_model.__file__).resolve())
    command = [sys.executable, code, str(folders[runtime]), "the puppy", "fin 😀"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    expected = open_model(folders[runtime]).answer(["the puppy", "fin 😀"])
    assert [answer["label"] for answer in answers] == [answer.label for answer in expected]
    assert set(answers[0]) == {"label", "confidence", "probabilities", "abstain"}


# When to be silent


@pytest.fixture
def describe(folders, tmp_path):
    """Open a copy of what is served with changes to its description."""

    def describe(name, **changes):
        copy = Path(shutil.copytree(folders[name], tmp_path / name, dirs_exist_ok=True))
        about = json.loads((folders[name] / ABOUT).read_text())
        (copy / ABOUT).write_text(json.dumps(about | changes))
        return open_model(copy)

    return describe


@pytest.mark.parametrize("name", SERVED)
def test_below_the_confidence_to_answer_from_the_model_abstains(describe, name):
    sure = [answer.confidence for answer in describe(name).answer(TEXTS)]
    limit = sorted(sure)[len(sure) // 2]
    answers = describe(name, calibration={"answer_from": limit}).answer(TEXTS)
    assert [answer.abstain for answer in answers] == [value < limit for value in sure]
    assert {answer.abstain for answer in answers} == {True, False}
    never = describe(name, calibration={"answer_from": NEVER}).answer(TEXTS)
    assert all(answer.abstain for answer in never)
    assert [answer.label for answer in never] == [answer.label for answer in answers]


# What an answer lists, and when it abstains, as asked


@settings(deadline=None, max_examples=15)
@given(top_k=st.integers(1, 5), threshold=st.floats(0, 1))
def test_every_runtime_lists_the_likeliest_classes_and_abstains_as_asked(model, top_k, threshold):
    plain, asked = model.answer(TEXTS), model.answer(TEXTS, top_k=top_k, threshold=threshold)
    for whole, answer in zip(plain, asked, strict=True):
        likeliest = sorted(whole.probabilities.items(), key=lambda pair: -pair[1])[:top_k]
        assert list(answer.probabilities.items()) == likeliest
        assert (answer.label, answer.confidence) == (whole.label, whole.confidence)
        assert answer.abstain == (whole.confidence < threshold)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"top_k": 0}, "top_k is 0. Give the number of classes to list, 1 or more."),
        ({"threshold": 1.5}, "threshold is 1.5. Give a confidence from 0 to 1."),
        ({"threshold": float("nan")}, "threshold is nan."),
    ],
)
def test_what_cannot_be_asked_is_refused(model, asked, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        model.answer(TEXTS, **asked)


# A student that is served otherwise than it was trained fails


@pytest.fixture
def changed(served, tmp_path):
    """A copy of a student that a test may change, with what it said and read in training."""

    def copy(name):
        texts = served.validation.texts
        model = open_model(served.folders[name])
        ids = model.token_ids(texts) if name in WITH_TOKENS else None
        folder = shutil.copytree(served.folders[name], tmp_path / name)
        check_served(folder, texts, model.logits(texts), ids)
        return folder, texts, model.logits(texts), ids

    return copy


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_one_that_reads_fewer_tokens_is_told(changed, name):
    folder, texts, logits, ids = changed(name)
    about = json.loads((folder / ABOUT).read_text())
    (folder / ABOUT).write_text(json.dumps(about | {"max_length": MAX_LENGTH - 1}))
    with pytest.raises(PotstillError, match="reads other tokens than in training, as in") as caught:
        check_served(folder, texts, logits, ids)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["static", "onnx"])
def test_one_that_reads_the_other_side_is_told(changed, served, name):
    folder, texts, _, ids = changed(name)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    other = {"left": "Right", "right": "Left"}[served.side]
    tokenizer["truncation"]["direction"] = other
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(PotstillError, match="reads other tokens"):
        check_reading(open_model(folder), texts, ids)


@pytest.mark.parametrize("name", ["layers", "static", "bag_of_words"])
def test_one_with_other_weights_is_told(changed, name):
    folder, texts, logits, ids = changed(name)
    if name == "layers":
        weights = load_file(folder / "model.safetensors")
        weights["classifier.bias"] += torch.tensor([1.0, 0, 0])
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        with np.load(folder / "weights.npz") as file:
            arrays = dict(file)
        arrays["output_bias"] = arrays["output_bias"] + np.float32([1, 0, 0])
        np.savez(folder / "weights.npz", **arrays)
    with pytest.raises(PotstillError, match=r"answers differently than in training, by up to 1 in"):
        check_served(folder, texts, logits, ids)


def test_a_logit_that_is_no_number_is_told(changed):
    folder, texts, logits, ids = changed("static")
    with pytest.raises(PotstillError, match="answers differently"):
        check_served(folder, texts, np.full_like(logits, np.nan), ids)


def test_rows_are_picked_from_the_shortest_to_the_longest():
    texts = ["x" * length for length in np.random.default_rng(0).permutation(500)]
    picked = [len(texts[row]) for row in pick_rows(texts)]
    assert picked == sorted(set(picked))
    assert (picked[0], picked[-1], len(picked)) == (0, 499, 32)
    assert pick_rows(["a", "bb"]) == [0, 1]
    assert pick_rows([]) == []


def test_a_text_without_tokens_is_one_of_padding(tiny_base):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.backend_tokenizer.post_processor = None
    backend = encode(tokenizer, ["", "purr"], MAX_LENGTH)
    assert [len(ids) for ids in backend["input_ids"]] == [len(m) for m in backend["attention_mask"]]
    assert all(backend["input_ids"])
