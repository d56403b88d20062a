"""What is served reads and answers as what was trained, whatever the tokenizer's own ways are."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from samples import CLASSES, FILLERS, WORDS
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_tasks.core.errors import PotstillError
from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.serving.served_model import ABOUT, GRAPH, open_model
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
WITH_TOKENS = ("layers", "pretrained", "static", *EXPORTED)
RUNTIMES = (*WITH_TOKENS, "bag_of_words")


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


@pytest.fixture(scope="module", params=["left", "right"])
def served(request, tiny_base, tmp_path_factory):
    """Students of every family and variant, of a base whose tokenizer cuts on one side."""
    side, folder = request.param, tmp_path_factory.mktemp(request.param)
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
    distilled = {"epochs": 12, "learning_rate": 0.005, "batch_rows": 8, "freeze_embeddings": False}
    students = {
        "layers": LayersStudent(layers=1, **distilled),
        "pretrained": PretrainedStudent(model=str(base), **distilled),
        "static": StaticStudent(dimensions=8, epochs=8),
        "bag_of_words": BagOfWordsStudent(max_features=60),
    }
    folders = {name: folder / name for name in RUNTIMES}
    for name, made in folders.items():
        made.mkdir()
        if name in students:
            students[name].train(training_set, made)
    graph = None
    for name in EXPORTED:
        export_variant(folders["layers"], name, graph, [], folders[name])
        graph = folders["onnx"] / GRAPH
    return SimpleNamespace(side=side, base=base, folders=folders, validation=validation)


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_every_runtime_reads_the_side_that_was_taught(served, name):
    model, texts = open_model(served.folders[name]), served.validation.texts
    said = model.logits(texts).argmax(axis=1)
    assert np.mean(said == served.validation.gold) > 0.9
    other = [" ".join(text.split()[::-1]) for text in texts]
    assert np.mean(model.logits(other).argmax(axis=1) == served.validation.gold) < 0.3


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


@pytest.mark.parametrize("name", ["layers", "pretrained", "onnx"])
def test_the_logits_are_those_of_the_library(served, name):
    source = served.folders["layers" if name == "onnx" else name]
    texts = [*served.validation.texts, "purr", "fin reef"]
    found = open_model(served.folders[name]).logits(texts)
    np.testing.assert_allclose(found, answer_plainly(source, texts), atol=1e-3)


def test_rows_are_padded_on_the_side_of_the_tokenizer(served, tmp_path):
    """What a batch says then follows from the tokenizer, right or wrong, as in training."""
    folder = shutil.copytree(served.folders["layers"], tmp_path / "left")
    texts = ["purr", *served.validation.texts[:3]]
    before = open_model(folder).logits(texts)
    AutoTokenizer.from_pretrained(folder, padding_side="left").save_pretrained(folder)
    after = open_model(folder).logits(texts)
    np.testing.assert_allclose(after, answer_plainly(folder, texts), atol=1e-5)
    assert np.abs(before[0] - after[0]).max() > 1e-3


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
    with pytest.raises(PotstillError, match="reads other tokens than in training, as of") as caught:
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
    with pytest.raises(PotstillError, match=r"answers otherwise than in training, by up to 1 in"):
        check_served(folder, texts, logits, ids)


def test_a_logit_that_is_no_number_is_told(changed):
    folder, texts, logits, ids = changed("static")
    with pytest.raises(PotstillError, match="answers otherwise"):
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
