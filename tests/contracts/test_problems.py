"""What holds for every kind of problem, from the labels that users write to the served answer."""

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from samples import CLASSES, FILLERS, WORDS

from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.gold import read_gold
from distill_tasks.data.rows import read_rows
from distill_tasks.data.settings import RowFormat
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.problems.classification import (
    LABEL_SEPARATOR,
    NO_LABEL,
    Problem,
    balance_classes,
    confidence,
    decide,
    find_known,
    log_probabilities,
    name_labels,
    probabilities,
    to_decisions,
)
from distill_tasks.scoring import metrics
from distill_tasks.scoring.calibration import Calibration, calibrate
from distill_tasks.scoring.intervals import plain_value
from distill_tasks.scoring.scorecard import (
    F1_METRICS,
    EvalSplit,
    Predictions,
    quality_statistic,
    score,
)
from distill_tasks.scoring.statistics import quality
from distill_tasks.serving.served_model import open_model
from distill_tasks.students import BagOfWordsStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.controls import CONTROLS
from distill_tasks.students.folder import describe_calibration
from distill_tasks.training.losses import OF_TWO_OUTCOMES, distillation_loss, gold_loss
from distill_tasks.training.objective import HIDDEN_TERMS, Objective, Term

PROBLEMS = get_args(Problem)
LOSSES = {
    "single_label": tuple(term for term in get_args(Term) if term not in HIDDEN_TERMS),
    "multi_label": tuple(OF_TWO_OUTCOMES),
}
"""The distillation losses that a problem may be trained with."""
LABELS = {
    "single_label": st.sampled_from(CLASSES).map(lambda name: (name,)),
    "multi_label": st.sets(st.sampled_from(CLASSES)).map(lambda names: tuple(sorted(names))),
}
"""The labels that one row can have."""

FINDING = Note(Rank.KNOW, "a finding")

every_problem = pytest.mark.parametrize("problem", PROBLEMS)
few = settings(max_examples=50)
temperatures = st.sampled_from([0.05, 1.0, 20.0])


def draw_logits(largest, rows=4):
    """Return a strategy of logits (rows, classes), however large or small."""
    return arrays(np.float32, (rows, 3), elements=st.floats(-largest, largest, width=32))


def to_gold(rows, problem):
    """Return labels (tuples of names) as numbers in the form that a split holds."""
    several = np.array([[name in labels for name in CLASSES] for labels in rows], np.int64)
    return several if problem == "multi_label" else several.argmax(axis=1)


def no_gold(problem, rows):
    """Return the gold of a split that has none."""
    return np.full(rows if problem == "single_label" else (rows, len(CLASSES)), NO_LABEL, np.int64)


def make_perfect(gold, size=9.0):
    """Return logits (rows, classes) that speak for gold, and for nothing else."""
    return np.where(to_decisions(gold, len(CLASSES)), size, -size).astype(np.float32)


def make_split(problem, rows, seed):
    """Return rows whose labels can be read from their words."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(rows):
        count = 1 if problem == "single_label" else generator.integers(0, 4)
        names = tuple(sorted(generator.choice(CLASSES, count, replace=False)))
        marks = [word for name in names for word in generator.choice(WORDS[name], 2)]
        texts.append(" ".join([*marks, *generator.choice(FILLERS, 6)]))
        labels.append(names)
    return Split(tuple(texts), to_gold(labels, problem))


def make_training_set(problem, rows=240, **changes):
    """Return rows whose teacher is right, and of which half have gold."""
    split = make_split(problem, rows, seed=3)
    teacher = SoftLabels(make_perfect(split.gold, size=4.0), CLASSES, "teacher")
    gold = split.gold.copy()
    gold[::2] = NO_LABEL
    usual = {
        "rows": Split(split.texts, gold),
        "soft_labels": teacher,
        "validation": make_split(problem, 90, seed=4),
        "classes": CLASSES,
        "objective": Objective(2.0, 0.5),
        "seed": 5,
        "teacher": None,
        "problem": problem,
    }
    return TrainingSet(**usual | changes)


@dataclass(frozen=True)
class Served:
    """A student that was trained and calibrated on validation, as it is served."""

    folder: Path
    other: Path
    """A copy, whose calibration tests may change."""
    calibration: Calibration
    validation: Split


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Return the served student of a problem, trained once."""

    @cache
    def train(problem):
        folder, training_set = tmp_path_factory.mktemp(problem), make_training_set(problem)
        BagOfWordsStudent(max_features=200).train(training_set, folder)
        validation = training_set.validation
        gold = validation.decisions(len(CLASSES))
        logits = open_model(folder).logits(validation.texts)
        calibration = calibrate(logits, gold, problem, precision=0.9)
        describe_calibration(folder, calibration)
        other = Path(shutil.copytree(folder, tmp_path_factory.mktemp(problem) / "other"))
        return Served(folder, other, calibration, validation)

    return train


def test_every_problem_is_held_to_this():
    assert set(PROBLEMS) == LOSSES.keys() == LABELS.keys() == F1_METRICS.keys()


# Gold


@every_problem
@given(data=st.data())
@few
def test_the_labels_that_users_write_come_back_from_decisions(problem, data):
    written = data.draw(st.lists(LABELS[problem], min_size=1, max_size=8))
    cells = [LABEL_SEPARATOR.join(labels) for labels in written]
    frames = {"train": pd.DataFrame({"label": cells})}
    read, _ = read_gold(frames, RowFormat(), problem, CLASSES)
    assert [tuple(sorted(labels)) for labels in read["train"]] == written
    decisions = to_decisions(to_gold(read["train"], problem), len(CLASSES))
    assert decisions.shape == (len(written), len(CLASSES))
    assert name_labels(decisions, CLASSES) == cells
    if problem == "single_label":
        assert (decisions.sum(axis=1) == 1).all()


@every_problem
def test_rows_of_a_file_have_the_gold_that_stands_in_it(problem, tmp_path):
    split = make_split(problem, 30, seed=7)
    labels = name_labels(split.decisions(len(CLASSES)), CLASSES)
    written = [
        json.dumps({"text": text, "label": label})
        for text, label in zip(split.texts, labels, strict=True)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(written))
    rows, classes, _ = read_rows(tmp_path / "rows.jsonl", RowFormat(), problem, CLASSES)
    assert classes == CLASSES
    assert rows.digest == split.digest
    assert rows.rows_per_class(len(CLASSES)).tolist() == [
        sum(name in label.split(LABEL_SEPARATOR) for label in labels) for name in CLASSES
    ]


@every_problem
def test_a_saved_corpus_is_read_as_it_was(problem, tmp_path):
    splits = {"train": make_split(problem, 20, seed=1), "transfer": make_split(problem, 9, seed=2)}
    splits["transfer"] = Split(splits["transfer"].texts, no_gold(problem, 9))
    corpus = Corpus(splits, CLASSES, (FINDING,), problem)
    corpus.save(tmp_path)
    again = Corpus.open(tmp_path)
    assert again.digest == corpus.digest
    assert (again.problem, again.findings) == (problem, (FINDING,))
    assert find_known(again.training_rows.gold).tolist() == [True] * 20 + [False] * 9


@every_problem
@given(data=st.data())
@few
def test_rows_without_gold_are_found_and_teach_no_gold(problem, data):
    known = data.draw(arrays(bool, 6))
    gold = to_gold(data.draw(st.lists(LABELS[problem], min_size=6, max_size=6)), problem)
    weights = balance_classes(gold[known], len(CLASSES))
    gold[~known] = NO_LABEL
    split = Split(("text",) * 6, gold)
    assert find_known(gold).tolist() == known.tolist()
    assert split.has_gold == (split.decisions(len(CLASSES)) is not None) == known.all()
    np.testing.assert_array_equal(balance_classes(gold, len(CLASSES)), weights)
    losses = gold_loss(torch.zeros(6, len(CLASSES)), torch.from_numpy(gold))
    assert (losses > 0).tolist() == known.tolist()


# Probabilities and decisions


@every_problem
@given(logits=draw_logits(2.0**100), temperature=temperatures)
@few
def test_probabilities_lie_between_zero_and_one(problem, logits, temperature):
    values = probabilities(logits, problem, temperature)
    assert values.shape == logits.shape
    assert ((values >= 0) & (values <= 1)).all()
    assert (log_probabilities(logits, problem, temperature) <= 0).all()
    if problem == "single_label":
        np.testing.assert_allclose(values.sum(axis=1), 1)


@every_problem
@given(logits=draw_logits(30), temperature=temperatures)
@few
def test_decisions_are_the_likely_classes_whatever_the_temperature(problem, logits, temperature):
    logits = logits.round(3)  # no nearer to a threshold than rounding, unless they are equal
    decisions = decide(logits, problem)
    values = probabilities(logits, problem, temperature)
    assert (decide(logits / np.float32(temperature), problem) == decisions).all()
    sure = confidence(logits, decisions, problem, temperature)
    assert ((sure > 0) & (sure <= 1)).all()
    if problem == "single_label":
        assert (decisions.sum(axis=1) == 1).all()
        np.testing.assert_array_equal(values[decisions], values.max(axis=1))
    else:
        np.testing.assert_array_equal(decisions, values >= 0.5)


@every_problem
@given(data=st.data())
@few
def test_logits_that_speak_for_gold_decide_for_it(problem, data):
    gold = to_gold(data.draw(st.lists(LABELS[problem], min_size=1, max_size=8)), problem)
    decisions = to_decisions(gold, len(CLASSES))
    np.testing.assert_array_equal(decide(make_perfect(gold), problem), decisions)
    assert (confidence(make_perfect(gold), decisions, problem) > 0.99).all()


# Losses


@every_problem
@given(data=st.data(), student=draw_logits(1e4), teacher=draw_logits(1e4))
@few
def test_losses_and_their_slopes_are_finite(problem, data, student, teacher):
    gold = to_gold(data.draw(st.lists(LABELS[problem], min_size=4, max_size=4)), problem)
    gold[data.draw(arrays(bool, 4))] = NO_LABEL
    terms = data.draw(st.sets(st.sampled_from(LOSSES[problem]), min_size=1))
    alpha, temperature = data.draw(st.floats(0, 1)), data.draw(st.sampled_from([0.5, 2.0, 10.0]))
    objective = Objective(temperature, alpha, dict.fromkeys(terms, 1.0), data.draw(st.booleans()))
    logits = torch.from_numpy(student).requires_grad_()
    weights = torch.from_numpy(balance_classes(gold, len(CLASSES)))
    loss = distillation_loss(
        logits, torch.from_numpy(teacher), torch.from_numpy(gold), objective, weights
    )
    loss.backward()
    assert loss.isfinite()
    assert loss > -1e-3  # rounding, of terms up to 1e5
    assert logits.grad.isfinite().all()


@every_problem
@given(data=st.data(), teacher=draw_logits(30))
@few
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_slope(problem, data, teacher):
    term = data.draw(st.sampled_from(LOSSES[problem]))
    gold = torch.from_numpy(no_gold(problem, 4))
    student = torch.from_numpy(teacher.astype(np.float64)).requires_grad_()
    loss = distillation_loss(student, student.detach(), gold, Objective(2.0, 0.5, {term: 1.0}))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert student.grad.abs().max() < 1e-6


@every_problem
@given(data=st.data(), student=draw_logits(30), teacher=draw_logits(30))
@few
def test_without_gold_the_share_of_gold_in_the_loss_does_not_matter(
    problem, data, student, teacher
):
    alpha, term = data.draw(st.floats(0, 1)), data.draw(st.sampled_from(LOSSES[problem]))
    tensors = [torch.from_numpy(x) for x in (student, teacher, no_gold(problem, 4))]
    found, alone = (
        distillation_loss(*tensors, Objective(2.0, share, {term: 1.0})) for share in (alpha, 1.0)
    )
    assert found == alone


# Scores


def evaluate(problem, split, teacher, metric="accuracy"):
    """Return a split with a teacher's logits, as models are scored on it."""
    return EvalSplit(
        "held_out", split, Predictions(teacher, Calibration()), CLASSES, problem, metric
    )


@every_problem
@given(data=st.data())
@few
def test_perfect_answers_have_quality_one_and_each_wrong_row_costs_its_share(problem, data):
    labels = data.draw(st.lists(LABELS[problem], min_size=1, max_size=8))
    gold = to_decisions(to_gold(labels, problem), len(CLASSES))
    counts = st.integers(1, 5).map(float)
    weights = data.draw(arrays(np.float32, (3, len(gold)), elements=counts))
    for metric in ("accuracy", *F1_METRICS[problem]):
        expected = 1.0 if metric == "accuracy" or gold.any() else 0.0  # no class, no F1
        np.testing.assert_allclose(quality(metric, gold, gold)(weights), expected, rtol=1e-6)
    wrong = gold.copy()
    wrong[0] = np.roll(gold[0], 1) if problem == "single_label" else ~gold[0]
    expected = 1 - weights[:, 0] / weights.sum(axis=1)
    np.testing.assert_allclose(quality("accuracy", gold, wrong)(weights), expected, atol=1e-6)


@every_problem
def test_a_perfect_student_of_a_perfect_teacher_has_a_perfect_scorecard(problem):
    split = make_split(problem, 60, seed=8)
    logits = make_perfect(split.gold, size=20.0)
    perfect = Predictions(logits, Calibration())
    for metric in ("accuracy", *F1_METRICS[problem]):
        card = score(evaluate(problem, split, logits, metric), [perfect])
        names = {f"quality/{name}" for name in ("accuracy", *F1_METRICS[problem])}
        best = {*names, "fidelity/retention", "fidelity/agreement", "fidelity/top_overlap"}
        assert {name: card.values[name] for name in best} == pytest.approx(dict.fromkeys(best, 1))
        others = card.values.keys() - best
        assert {"fidelity/kl", "fidelity/js", "calibration/nll", "calibration/ece"} < others
        least = dict.fromkeys(others, 0)
        assert {name: card.values[name] for name in others} == pytest.approx(least, abs=1e-6)
        assert card.classes_scored == len(CLASSES)
        assert card.quality == card.figures[f"quality/{metric}"]


@every_problem
def test_without_gold_a_student_is_scored_against_the_teacher_and_not_calibrated(problem):
    rows = make_split(problem, 40, seed=8)
    split = Split(rows.texts, no_gold(problem, 40))
    teacher = make_perfect(rows.gold)
    student = teacher.copy()
    student[:10] *= -1  # another answer in every one of these rows
    scored = evaluate(problem, split, teacher, "macro_f1")
    seeds = [Predictions(student, calibrate(student, scored.gold, problem, precision=0.9))]
    assert seeds[0].calibration == Calibration()
    card = score(scored, seeds)
    assert {name.split("/")[0] for name in card.figures} == {"fidelity"}
    assert "fidelity/retention" not in card.figures
    assert (card.per_class, card.classes_scored) == ([], 0)
    assert card.quality.value == pytest.approx(0.75)
    assert plain_value(quality_statistic(scored, seeds), 40) == pytest.approx(0.75)


@every_problem
def test_the_modules_of_evaluate_give_the_figures_of_the_scorecard(problem):
    split = make_split(problem, 60, seed=8)
    noise = np.random.default_rng(0).normal(size=(60, len(CLASSES)), scale=3)
    logits = (make_perfect(split.gold, size=2.0) + noise).astype(np.float32)
    card = score(evaluate(problem, split, logits), [Predictions(logits, Calibration())])
    found = {}
    for module in (metrics.Accuracy, metrics.F1, metrics.Calibration):
        asked = {"predictions": logits, "references": split.gold}
        found |= module(config_name=problem).compute(**asked)
    named = {name.split("/")[1]: value for name, value in card.values.items()}
    shared = found.keys() & named.keys()
    assert shared == {"accuracy", *F1_METRICS[problem], "ece", "nll", "brier"}
    assert {name: found[name] for name in shared} == pytest.approx(
        {name: named[name] for name in shared}, rel=1e-6
    )
    assert 0.4 < found["accuracy"] < 0.99


# What is served


texts_of_words = st.lists(
    st.sampled_from([*FILLERS, *(word for words in WORDS.values() for word in words)]), max_size=9
).map(" ".join)


@every_problem
@given(texts=st.lists(texts_of_words, min_size=1, max_size=6))
@few
def test_the_served_model_says_what_decisions_and_confidence_say(problem, serve, texts):
    served = serve(problem)
    model, calibration = open_model(served.folder), served.calibration
    logits, answers = model.logits(texts), model.answer(texts)
    labels = [answer.label for answer in answers]
    assert labels == name_labels(calibration.decide(logits, problem), CLASSES)
    sure = calibration.confidence(logits, problem)
    assert [answer.confidence for answer in answers] == pytest.approx(sure, rel=1e-4, abs=1e-6)
    expected = probabilities(logits, problem, calibration.temperature)
    found = [list(answer.probabilities.values()) for answer in answers]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    for answer in answers:
        assert tuple(answer.probabilities) == CLASSES
        assert answer.abstain == (answer.confidence < calibration.answer_from)


shares = st.floats(0.05, 0.95)


@every_problem
@given(texts=st.lists(texts_of_words, min_size=1, max_size=6), data=st.data())
@few
def test_any_temperature_and_thresholds_are_served_as_they_decide(problem, serve, texts, data):
    thresholds = data.draw(st.tuples(shares, shares, shares).map(list))
    calibration = Calibration(
        data.draw(st.floats(0.5, 5)),
        None if problem == "single_label" else thresholds,
        data.draw(st.none() | shares),
    )
    served = serve(problem)
    describe_calibration(served.other, calibration)
    model = open_model(served.other)
    logits, answers = model.logits(texts), model.answer(texts)
    values = probabilities(logits, problem, calibration.temperature)
    sure = calibration.confidence(logits, problem)
    least = calibration.answer_from or 0.0
    assume((np.abs(values - thresholds) > 1e-5).all() and (np.abs(sure - least) > 1e-5).all())
    labels = name_labels(calibration.decide(logits, problem), CLASSES)
    assert [answer.label for answer in answers] == labels
    assert [answer.abstain for answer in answers] == (sure < least).tolist()


@every_problem
def test_the_served_model_answers_with_labels_of_the_class_list(problem, serve):
    served = serve(problem)
    model = open_model(served.folder)
    assert (model.problem, tuple(model.classes)) == (problem, CLASSES)
    labels = [answer.label for answer in model.answer(served.validation.texts)]
    gold = name_labels(served.validation.decisions(len(CLASSES)), CLASSES)
    assert np.mean([label == true for label, true in zip(labels, gold, strict=True)]) > 0.8
    several = {label for label in labels if label not in CLASSES}
    if problem == "single_label":
        assert not several
    else:
        assert "" in several  # none of the labels
        assert {name for label in several if label for name in label.split("|")} == set(CLASSES)


@every_problem
@pytest.mark.parametrize("name", CONTROLS)
def test_controls_answer_every_text_with_finite_logits(problem, name):
    split = make_split(problem, 90, seed=6)
    control = CONTROLS[name](split, len(CLASSES), problem)
    logits = control.logits(["the puppy likes to bark", "", "unknown"])
    assert logits.shape == (3, len(CLASSES))
    assert (logits.dtype, np.isfinite(logits).all()) == (np.float32, True)
    majority = split.rows_per_class(len(CLASSES)) / len(split)
    values = probabilities(control.logits(split.texts), problem)
    np.testing.assert_allclose(values.mean(axis=0), majority, atol=0.05)
