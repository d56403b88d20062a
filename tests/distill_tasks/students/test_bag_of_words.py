import json
import os
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import CLASSES, FILLERS, make_rows
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from scipy.special import log_softmax, softmax
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.serving.served_model import ABOUT, open_model
from distill_tasks.serving.served_text import HashedTerms, find_characters, find_words
from distill_tasks.students import (
    BagOfWordsStudent,
    LayersStudent,
    StaticStudent,
    bag_of_words,
)
from distill_tasks.students.bag_of_words import (
    EPOCHS,
    FEWEST_PAIRS,
    ITERATIONS,
    WEIGHT_DECAY,
    count_pairs,
    fit_linear,
    loss_and_slope,
)
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.controls import without_teacher
from distill_tasks.students.terms import count_terms, weigh_terms
from distill_tasks.training.objective import Objective

ROWS, GOLD_ROWS = 600, 200
PURE = Objective(1.0, 1.0)
LONGEST = 4
STUDENTS = {
    "words": BagOfWordsStudent(),
    "characters": BagOfWordsStudent(characters=LONGEST),
    "hashed": BagOfWordsStudent(hashed=True, max_features=300),
    "hashed characters": BagOfWordsStudent(hashed=True, characters=LONGEST, max_features=300),
    "hidden": BagOfWordsStudent(hidden_units=16),
    "all": BagOfWordsStudent(hashed=True, characters=3, hidden_units=8, ngrams=1),
}
texts = st.lists(st.sampled_from([*make_rows(9, seed=4)["text"], *FILLERS]), max_size=4)
any_texts = st.lists(st.text(max_size=40) | texts.map(" ".join), min_size=1, max_size=4)


def make_training_set(texts, logits, objective=PURE, gold=None, **changes):
    """A teacher's answers to texts, without gold where none is given."""
    logits = np.asarray(logits, np.float32)
    classes = CLASSES[: logits.shape[1]]
    rows = Split(tuple(texts), np.full(len(texts), NO_LABEL) if gold is None else gold)
    training_set = TrainingSet(
        rows, SoftLabels(logits, classes, "teacher"), rows, classes, objective, 5, None
    )
    return replace(training_set, **changes)


@pytest.fixture(scope="module")
def training_set():
    rows = make_rows(ROWS, seed=3)
    gold = np.array([CLASSES.index(name) for name in rows["label"]])
    some = np.where(np.arange(ROWS) < GOLD_ROWS, gold, NO_LABEL)
    return make_training_set(rows["text"], 4 * np.eye(3)[gold], Objective(2.0, 0.9), some)


@pytest.fixture(scope="module")
def folders(training_set, tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name.replace(" ", "-")) for name in STUDENTS}
    for name, student in STUDENTS.items():
        student.train(training_set, made[name])
    return made


@pytest.fixture(scope="module")
def models(folders):
    return {name: open_model(folder) for name, folder in folders.items()}


def features_of(student, rows):
    """The features that training makes."""
    counted = count_terms(rows, student.ngrams, student.characters)
    kinds = [weigh_terms(*one, student.max_features, student.hashed) for one in counted]
    return hstack([kind.features for kind in kinds], format="csr")


@settings(deadline=None)
@given(st.text(max_size=60) | texts.map(" ".join), st.integers(1, 4), st.integers(3, 6))
def test_terms_are_those_of_scikit_learn(text, words, characters):
    plain = CountVectorizer(ngram_range=(1, words)).build_analyzer()
    assert find_words(text.lower(), words) == plain(text)
    inside = CountVectorizer(analyzer="char_wb", ngram_range=(3, characters)).build_analyzer()
    found = [run for word in text.lower().split() for run in find_characters(word, characters)]
    assert Counter(found) == Counter(inside(text))


def test_runs_of_characters_of_one_word():
    assert find_characters("cat", 4) == [" ca", "cat", "at ", " cat", "cat "]
    assert find_characters("a", 9) == [" a "]


@settings(deadline=None, max_examples=40)
@given(any_texts)
def test_words_and_characters_are_two_tfidf_side_by_side(training_set, models, rows):
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    inside = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, LONGEST), sublinear_tf=True)
    for name, kinds in {"words": [words], "characters": [words, inside]}.items():
        model = models[name]
        theirs = hstack([kind.fit(training_set.rows.texts).transform(rows) for kind in kinds])
        expected = theirs @ model.output + model.output_bias
        np.testing.assert_allclose(model.logits(rows), expected, atol=1e-4)


def test_the_most_frequent_terms_of_each_kind_are_kept(training_set, tmp_path):
    student = BagOfWordsStudent(characters=LONGEST, max_features=50)
    student.train(training_set, tmp_path)
    model = open_model(tmp_path)
    for kept, kind in (
        (model.words, {"ngram_range": (1, 2)}),
        (model.runs, {"analyzer": "char_wb", "ngram_range": (3, LONGEST)}),
    ):
        counter = CountVectorizer(**kind)
        counts = np.asarray(counter.fit_transform(training_set.rows.texts).sum(axis=0)).ravel()
        totals = dict(zip(counter.get_feature_names_out(), counts.tolist(), strict=True))
        assert len(kept) == 50
        assert sorted(kept) == list(kept)
        assert min(totals.pop(term) for term in list(kept)) >= max(totals.values())
    assert [*model.words.values(), *model.runs.values()] == list(range(100))


@settings(deadline=None, max_examples=40)
@given(any_texts)
def test_hashed_terms_are_counts_added_up_by_column_without_idf(models, rows):
    kinds = [{"ngram_range": (1, 2)}, {"analyzer": "char_wb", "ngram_range": (3, LONGEST)}]
    blocks = []
    for kind in kinds:
        analyze = CountVectorizer(**kind).build_analyzer()
        counts = np.zeros((len(rows), 300))
        for row, text in enumerate(rows):
            for term in analyze(text):
                counts[row, zlib.crc32(term.encode()) % 300] += 1
        weigher = TfidfTransformer(sublinear_tf=True, use_idf=False)
        blocks.append(weigher.fit_transform(csr_matrix(counts)))
    for name, used in {"hashed": blocks[:1], "hashed characters": blocks}.items():
        model = models[name]
        expected = hstack(used) @ model.output + model.output_bias
        np.testing.assert_allclose(model.logits(rows), expected, atol=1e-4)


def test_a_hash_is_the_published_check_value_of_crc32_and_falls_into_the_columns():
    assert HashedTerms(0, 2**32).get("123456789") == 0xCBF43926
    found = {HashedTerms(10, 7).get(term) for term in map(str, range(200))}
    assert found == set(range(10, 17))


@pytest.mark.parametrize("name", STUDENTS)
def test_the_served_model_has_the_logits_that_training_saw(name, training_set, models):
    features, model = features_of(STUDENTS[name], training_set.rows.texts), models[name]
    scores = torch.from_numpy(features.toarray()) @ torch.from_numpy(model.first)
    scores += torch.from_numpy(model.first_bias)
    if STUDENTS[name].hidden_units:
        scores = torch.relu(scores) @ torch.from_numpy(model.output)
        scores += torch.from_numpy(model.output_bias)
    np.testing.assert_allclose(model.logits(training_set.rows.texts), scores, atol=1e-5)
    assert (scores.argmax(dim=1).numpy() == training_set.soft_labels.logits.argmax(axis=1)).all()


@pytest.mark.parametrize("name", STUDENTS)
def test_what_is_not_known_leaves_the_biases(name, models):
    model = models[name]
    expected = model.first_bias
    if STUDENTS[name].hidden_units:
        expected = np.maximum(expected, 0) @ model.output + model.output_bias
    unknown = ["", " \n"] if STUDENTS[name].hashed else ["", " \n", "щ", "щщщщ щщщщ"]
    first = model.logits(unknown)
    np.testing.assert_allclose(first, np.tile(expected, (len(unknown), 1)), rtol=1e-6)
    np.testing.assert_array_equal(model.logits(unknown), first)


@pytest.mark.parametrize("name", STUDENTS)
def test_only_what_is_not_hashed_keeps_its_words(name, folders):
    assert (folders[name] / "vocabulary.json").is_file() is not STUDENTS[name].hashed


@pytest.mark.parametrize("name", STUDENTS)
def test_new_rows_get_the_teachers_answer(name, models):
    rows = make_rows(90, seed=8)
    said = models[name].logits(list(rows["text"])).argmax(axis=1)
    assert np.mean(np.array(CLASSES)[said] == rows["label"]) > 0.9


@pytest.mark.parametrize("name", ["words", "hidden"])
def test_threads_change_nothing_and_are_as_many_as_before(name, training_set, folders, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        STUDENTS[name].train(training_set, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    expected = (folders[name] / "weights.npz").read_bytes()
    assert (tmp_path / "weights.npz").read_bytes() == expected


def test_another_process_finds_the_same_columns(folders):
    code = (
        "import json, sys; from distill_tasks.serving.served_model import open_model;"
        "print(json.dumps(open_model(sys.argv[1]).logits(['the puppy likes fish']).tolist()))"
    )
    said = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(folders["hashed characters"])]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        said.add(done.stdout)
    (logits,) = said
    expected = open_model(folders["hashed characters"]).logits(["the puppy likes fish"])
    np.testing.assert_array_equal(np.float32(json.loads(logits)), expected)


def test_a_folder_from_before_there_were_characters_answers_as_it_did(folders, tmp_path):
    about = json.loads((folders["words"] / ABOUT).read_text())
    older = {key: about[key] for key in ("runtime", "problem", "classes", "ngrams")}
    (tmp_path / ABOUT).write_text(json.dumps(older))
    for name in ("vocabulary.json", "weights.npz"):
        (tmp_path / name).write_bytes((folders["words"] / name).read_bytes())
    rows = list(make_rows(20, seed=2)["text"])
    expected = open_model(folders["words"]).logits(rows)
    np.testing.assert_array_equal(open_model(tmp_path).logits(rows), expected)


def draw_training_set(objective, rows=150, words=8):
    """Texts whose answers are drawn at random, so that the best weights are finite."""
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(FILLERS[:words], 5)) for _ in range(rows)]
    return make_training_set(texts, generator.normal(size=(rows, 3)), objective)


def test_the_linear_layer_is_the_best_there_is():
    training_set = draw_training_set(Objective(1.0, 1.0))
    features = features_of(BagOfWordsStudent(ngrams=1), training_set.rows.texts)
    told = training_set.soft_labels.logits.astype(float)

    def loss(flat):
        weights = flat.reshape(-1, 3)
        said = log_softmax(features @ weights[:-1] + weights[-1], axis=1)
        soft = (softmax(told, axis=1) * (log_softmax(told, axis=1) - said)).sum(axis=1).mean()
        return soft + 0.5 * WEIGHT_DECAY * (weights[:-1] ** 2).sum()

    best = minimize(loss, np.zeros(3 * features.shape[1] + 3), options={"maxiter": 500})
    weights, (point,) = fit_linear(features, training_set)
    assert point["train/loss"] == pytest.approx(best.fun, abs=1e-5)
    found = np.vstack([weights["output"], weights["output_bias"]])
    assert loss(found.ravel()) == pytest.approx(point["train/loss"], abs=1e-5)
    assert best.fun < 0.98 * loss(np.zeros(3 * features.shape[1] + 3))


def test_the_linear_layer_stops_where_fifty_iterations_of_scipy_do(training_set):
    features, told = (
        features_of(STUDENTS["words"], training_set.rows.texts),
        training_set.soft_labels.logits,
    )
    sure = replace(training_set, soft_labels=replace(training_set.soft_labels, logits=8 * told))
    (point,) = fit_linear(features, sure)[1]

    def loss(flat):
        weights = flat.reshape(-1, 3)
        value, slope = loss_and_slope(features @ weights[:-1] + weights[-1], sure)
        decay = WEIGHT_DECAY * np.vstack([weights[:-1], np.zeros((1, 3))])
        gradient = np.vstack([features.T @ slope, slope.sum(axis=0)]) + decay
        return value + 0.5 * (decay * weights).sum(), gradient.ravel()

    start, limit = np.zeros(3 * features.shape[1] + 3), {"maxiter": ITERATIONS}
    theirs = minimize(loss, start, jac=True, method="L-BFGS-B", options=limit).fun
    assert 0.2 * theirs < point["train/loss"] < 5 * theirs < 0.1 * loss(start)[0]


@pytest.mark.parametrize("hashed", [False, True])
def test_texts_without_a_word_of_two_characters_are_learnt_by_their_characters(hashed, tmp_path):
    texts = ["我 爱 你", "你 好 吗"] * 20
    training_set = make_training_set(texts, np.tile([[3, -3], [-3, 3]], (20, 1)))
    with pytest.raises(PotstillError, match="no text has a word of two characters"):
        BagOfWordsStudent(hashed=hashed).train(training_set, tmp_path)
    BagOfWordsStudent(hashed=hashed, characters=3).train(training_set, tmp_path)
    assert open_model(tmp_path).logits(texts[:2]).argmax(axis=1).tolist() == [0, 1]


def test_l_bfgs_remembers_all_its_steps_but_for_millions_of_weights():
    assert [count_pairs(weights) for weights in (1, 10**5, 5 * 10**6)] == 3 * [ITERATIONS]
    assert count_pairs(10**7) == 25
    assert [count_pairs(weights) for weights in (5 * 10**7, 10**9)] == 2 * [FEWEST_PAIRS]


def test_with_few_steps_remembered_the_linear_layer_still_learns(training_set, monkeypatch):
    features = features_of(STUDENTS["words"], training_set.rows.texts)
    (whole,) = fit_linear(features, training_set)[1]
    monkeypatch.setattr(bag_of_words, "PAIRS_GB", 0.0)
    (part,) = fit_linear(features, training_set)[1]
    assert whole["train/loss"] != part["train/loss"] < 2 * whole["train/loss"]


def test_what_does_not_fit_into_memory_is_refused_in_one_sentence():
    rows = [f"text {number} of many" for number in range(2_000)]
    student = BagOfWordsStudent(ngrams=1)
    student.check_memory(rows, classes=1_000, most_gb=2.0)  # of 50,000 terms there are 1,993
    with pytest.raises(InputError) as caught:
        student.check_memory(rows, classes=1_000, most_gb=0.5)
    said = "takes about 1.2 GB of memory to learn 1,000 classes by 1,993 terms from 2,000 rows"
    assert said in str(caught.value)


def test_hashed_columns_and_a_hidden_layer_take_memory_whatever_the_rows():
    for student in (
        BagOfWordsStudent(hashed=True, max_features=10_000_000),
        BagOfWordsStudent(hashed=True, max_features=10_000_000, hidden_units=10_000),
    ):
        with pytest.raises(InputError, match="GB of memory to learn 100 classes"):
            student.check_memory(["one", "two"], classes=100, most_gb=16.0)
    BagOfWordsStudent(hidden_units=32).check_memory(["one", "two"], classes=2, most_gb=0.1)


MEASURED = """
import resource
import numpy as np
from pathlib import Path
from tempfile import TemporaryDirectory
from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.students import BagOfWordsStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.objective import Objective

generator, classes = np.random.default_rng(0), tuple(map(str, range(400)))
texts = [" ".join(map(str, row)) for row in generator.integers(10, 9_999, size=(1_000, 30))]
rows = Split(tuple(texts), np.full(1_000, -1))
answers = SoftLabels(generator.normal(size=(1_000, 400)).astype(np.float32), classes, "teacher")
training_set = TrainingSet(rows, answers, rows, classes, Objective(2.0, 1.0), 0, None)
student = BagOfWordsStudent(max_features=20_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with TemporaryDirectory() as folder:
    student.train(training_set, Path(folder))
taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
print(taken, student.estimate_memory_gb(1_000, 20_000, 400))
"""


@pytest.mark.slow
def test_the_memory_that_training_takes_is_about_what_was_estimated():
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True
    )
    taken, estimated = map(float, done.stdout.split())
    assert 0.5 * taken < estimated < 2 * taken


def test_a_hidden_layer_learns_what_no_linear_one_can(tmp_path):
    generator = np.random.default_rng(1)
    there = generator.integers(0, 2, (1_000, 2)).astype(bool)
    texts = [
        " ".join([*generator.choice(FILLERS[:4], 2), *np.array(["purr", "bark"])[row]])
        for row in there
    ]
    differ = there[:, 0] ^ there[:, 1]
    training_set = make_training_set(texts, np.where(differ[:, None], [3, -3], [-3, 3]))
    right = {}
    for units in (0, 16):
        (tmp_path / str(units)).mkdir()
        student = BagOfWordsStudent(ngrams=1, hidden_units=units)
        student.train(training_set, tmp_path / str(units))
        said = open_model(tmp_path / str(units)).logits(texts).argmax(axis=1) == 0
        right[units] = np.mean(said == differ)
    assert right[0] < 0.8 < 0.97 < right[16]


def test_a_curve_has_a_point_for_each_epoch_of_random_steps(training_set, tmp_path):
    (only,) = STUDENTS["characters"].train(training_set, tmp_path)
    assert (only["epoch"], only["step"]) == (1, 1)
    curve = STUDENTS["hidden"].train(training_set, tmp_path)
    assert [point["epoch"] for point in curve] == list(range(1, EPOCHS + 1))
    assert [point["step"] for point in curve] == list(range(10, 10 * EPOCHS + 1, 10))
    losses = [point["train/loss"] for point in curve]
    assert losses[-1] < 0.3 * losses[0]
    assert only["train/loss"] < losses[0]


@pytest.mark.parametrize("hidden_units", [0, 16])
@pytest.mark.parametrize("term", ["kl", "reverse_kl", "js", "dkd", "dist"])
def test_every_loss_of_logits_can_be_lowered(term, hidden_units, training_set, tmp_path):
    student = BagOfWordsStudent(hidden_units=hidden_units)
    objective = Objective(2.0, 0.9, {term: 1.0}, standardize=term == "js")
    student.train(replace(training_set, objective=objective), tmp_path)
    rows = make_rows(90, seed=8)
    said = open_model(tmp_path).logits(list(rows["text"])).argmax(axis=1)
    assert np.mean(np.array(CLASSES)[said] == rows["label"]) > 0.8


@pytest.mark.parametrize("name", ["words", "hidden"])
def test_losses_inside_a_transformer_are_none_of_this_family(name, training_set, folders, tmp_path):
    terms = {"kl": 1.0, "hidden": 2.0, "relations": 3.0}
    STUDENTS[name].train(replace(training_set, objective=Objective(2.0, 0.9, terms)), tmp_path)
    expected = (folders[name] / "weights.npz").read_bytes()
    assert (tmp_path / "weights.npz").read_bytes() == expected


@pytest.mark.parametrize("several", [False, True])
def test_a_hidden_layer_learns_the_weighted_share_of_gold(several, tmp_path):
    gold = (np.arange(640) % 4 > 0).astype(np.int64)
    gold = 1 - np.tile(gold[:, None], 2) if several else gold
    training_set = make_training_set(
        ["the puppy likes the house"] * 640,
        np.zeros((640, 2)),
        Objective(1.0, 0.0),
        gold,
        class_weights=np.array([3, 1], np.float32),
        problem="multi_label" if several else "single_label",
    )
    BagOfWordsStudent(hidden_units=8).train(training_set, tmp_path)
    (answer,) = open_model(tmp_path).answer(training_set.rows.texts[:1])
    # A quarter of the rows is of the first class: 1 to 3, with weight 3 as much as the rest.
    assert answer.probabilities["cats"] == pytest.approx(0.5, abs=0.05)
    assert answer.probabilities["dogs"] == pytest.approx(0.25 if several else 0.5, abs=0.05)


def test_only_a_hidden_layer_takes_random_steps(training_set):
    assert {name: student.in_steps for name, student in STUDENTS.items()} == {
        name: bool(student.hidden_units) for name, student in STUDENTS.items()
    }
    assert LayersStudent(layers=1).in_steps
    assert StaticStudent().in_steps
    repeated = without_teacher(training_set, STUDENTS["hidden"], None)
    assert len(repeated.rows) == ROWS
    assert len(without_teacher(training_set, STUDENTS["words"], None).rows) == GOLD_ROWS


def test_names_tell_what_is_not_at_its_default(written):
    written["students"] = [
        {
            "family": "bag_of_words",
            "max_features": 99,
            "characters": [0, 4],
            "hashed": [False, True],
            "hidden_units": [0, 32],
        }
    ]
    names = [student.name for student in parse_config(written, "test").students]
    assert len(set(names)) == 8
    assert names[0] == "bag-of-words-99"
    assert names[-1] == "bag-of-words-99-characters-4-hashed-1-hidden-units-32"


@pytest.mark.parametrize("characters", [1, 2])
def test_runs_shorter_than_the_shortest_are_refused(written, characters):
    written["students"] = [{"family": "bag_of_words", "characters": characters}]
    with pytest.raises(InputError, match=r"students\.0\.characters.*shortest run has 3 characters"):
        parse_config(written, "test")


@pytest.mark.parametrize("key", ["characters", "hidden_units"])
def test_less_than_none_is_refused(written, key):
    written["students"] = [{"family": "bag_of_words", key: -1}]
    with pytest.raises(InputError, match=rf"students\.0\.{key}.*at least 0"):
        parse_config(written, "test")


@pytest.mark.parametrize("terms", [{"kl": 1.0}, {"dist": 1.0}])
def test_the_loss_in_pieces_is_that_of_all_rows(training_set, monkeypatch, terms):
    training_set = replace(training_set, objective=replace(training_set.objective, terms=terms))
    scores = np.random.default_rng(0).normal(size=training_set.soft_labels.logits.shape)
    loss, slope = loss_and_slope(scores.astype(np.float32), training_set)
    monkeypatch.setattr(bag_of_words, "LOSS_ROWS", 7)
    in_pieces, steep = loss_and_slope(scores.astype(np.float32), training_set)
    assert in_pieces == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(steep, slope, rtol=1e-6, atol=1e-12)
