import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, rel_entr, softmax
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    f1_score,
    precision_recall_fscore_support,
)
from torch.nn import functional

from distill_tasks.problems.classification import confidence, decide, to_decisions
from distill_tasks.scoring import statistics as weighted
from distill_tasks.scoring.intervals import draw_weights

CLASSES = 4
F1 = {"macro_f1": "macro", "weighted_f1": "weighted", "micro_f1": "micro"}


@st.composite
def answers(draw):
    """Return a problem, gold, student logits and teacher logits of a few rows, ties among them."""
    problem = draw(st.sampled_from(["single_label", "multi_label"]))
    rows = draw(st.integers(1, 40))
    if problem == "single_label":
        numbers = draw(arrays(np.int64, rows, elements=st.integers(0, CLASSES - 1)))
        gold = to_decisions(numbers, CLASSES)
    else:
        gold = draw(arrays(bool, (rows, CLASSES)))
    logits = arrays(np.float32, (rows, CLASSES), elements=st.floats(-8, 8, width=16))
    return problem, gold, draw(logits), draw(logits)


def plain(statistic, rows):
    return statistic(np.ones((1, rows), np.float32))[0]


def naive_f1(metric, gold, said, present):
    if not len(present) and metric != "micro_f1":
        return 0
    labels = None if metric == "micro_f1" else present
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class of no rows in one draw
        return f1_score(gold, said, labels=labels, average=F1[metric], zero_division=0)


def naive_ece(sure, right):
    error = 0.0
    for rows in np.array_split(np.argsort(sure, kind="stable"), weighted.CALIBRATION_BINS):
        if len(rows):
            error += len(rows) / len(sure) * abs(right[rows].mean() - sure[rows].mean())
    return error


def outcomes(logits, problem):
    """Return the distribution of every decision, (decisions, outcomes) for each row."""
    wide = logits.astype(np.float64)
    if problem == "single_label":
        return softmax(wide, axis=1)[:, None]
    return np.stack([expit(wide), expit(-wide)], axis=2)


@given(answers(), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_a_weighted_metric_is_the_metric_of_the_rows_drawn(rows, seed):
    problem, gold, student, teacher = rows
    said, told = decide(student, problem), decide(teacher, problem)
    weights = draw_weights(np.random.default_rng(seed), 3, len(gold))
    weights[0] = 1
    drawn = [np.repeat(np.arange(len(gold)), weight.astype(int)) for weight in weights]
    present = np.flatnonzero(gold.any(axis=0))
    accuracy = [accuracy_score(gold[r], said[r]) for r in drawn]
    teachers = [accuracy_score(gold[r], told[r]) for r in drawn]
    ours, theirs = (weighted.quality("accuracy", gold, answer) for answer in (said, told))
    np.testing.assert_allclose(ours(weights), accuracy, rtol=1e-5)
    np.testing.assert_allclose(
        weighted.difference(ours, theirs)(weights), np.subtract(accuracy, teachers), atol=1e-6
    )
    np.testing.assert_allclose(
        weighted.average([ours, theirs])(weights), np.add(accuracy, teachers) / 2, rtol=1e-5
    )
    some = np.array(teachers) > 0
    retention = weighted.ratio(ours, theirs)(weights)
    np.testing.assert_allclose(
        retention[some], np.array(accuracy)[some] / np.array(teachers)[some], rtol=1e-5
    )
    for metric in F1:
        expected = [
            naive_f1(metric, gold[r], said[r], np.flatnonzero(gold[r].any(0))) for r in drawn
        ]
        found = weighted.quality(metric, gold, said)(weights)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert weighted.count_present(gold) == len(present)


@given(answers())
@settings(deadline=None, max_examples=60)
def test_divergences_are_those_of_scipy(rows):
    problem, _, student, teacher = rows
    said, told = outcomes(student, problem), outcomes(teacher, problem)
    middle = (said + told) / 2
    np.testing.assert_allclose(
        weighted.kl_divergence(student, teacher, problem),
        rel_entr(told, said).sum(axis=(1, 2)),
        rtol=1e-6,
        atol=1e-9,
    )
    np.testing.assert_allclose(
        weighted.js_divergence(student, teacher, problem),
        (rel_entr(said, middle) + rel_entr(told, middle)).sum(axis=(1, 2)) / 2,
        rtol=1e-6,
        atol=1e-9,
    )


@given(answers())
@settings(deadline=None, max_examples=60)
def test_the_jensen_shannon_divergence_is_symmetric_and_bounded(rows):
    problem, _, student, teacher = rows
    found = weighted.js_divergence(student, teacher, problem)
    turned = weighted.js_divergence(teacher, student, problem)
    decisions = 1 if problem == "single_label" else CLASSES
    np.testing.assert_allclose(found, turned, atol=1e-12)
    assert (found <= decisions * np.log(2) + 1e-12).all()


@given(answers(), st.sampled_from([0.5, 1.0, 4.0]))
@settings(deadline=None, max_examples=60)
def test_likelihood_and_brier_score_are_those_of_torch_and_scikit_learn(rows, temperature):
    problem, gold, student, _ = rows
    scaled = torch.from_numpy(student).double() / temperature
    if problem == "single_label":
        numbers = gold.argmax(axis=1)
        likelihood = functional.cross_entropy(scaled, torch.from_numpy(numbers))
        brier = brier_score_loss(
            numbers, scaled.softmax(1).numpy(), labels=range(CLASSES), scale_by_half=False
        )
    else:
        truth = torch.from_numpy(gold).double()
        likelihood = functional.binary_cross_entropy_with_logits(scaled, truth) * CLASSES
        brier = sum(
            brier_score_loss(truth[:, number], scaled.sigmoid()[:, number], labels=[0, 1])
            for number in range(CLASSES)
        )
    found = weighted.negative_log_likelihood(student, gold, problem, temperature).mean()
    assert found == pytest.approx(likelihood.item())
    assert weighted.brier_score(student, gold, problem, temperature).mean() == pytest.approx(brier)


@given(answers())
@settings(deadline=None, max_examples=60)
def test_the_calibration_error_is_the_one_by_hand_and_keeps_its_bins_when_rows_are_drawn(rows):
    problem, gold, student, _ = rows
    said = decide(student, problem)
    sure, right = confidence(student, said, problem), (said == gold).all(axis=1)
    statistic = weighted.calibration_error(sure, right)
    assert plain(statistic, len(gold)) == pytest.approx(naive_ece(sure, right), abs=1e-5)
    twice = np.full((1, len(gold)), 2, np.float32)
    assert statistic(twice)[0] == pytest.approx(plain(statistic, len(gold)), abs=1e-6)


@given(answers())
@settings(deadline=None, max_examples=60)
def test_the_overlap_is_that_of_the_sets_of_top_classes(rows):
    _, _, student, teacher = rows
    expected = []
    for said, told in zip(student.tolist(), teacher.tolist(), strict=True):
        ours, theirs = (
            set(sorted(range(CLASSES), key=lambda number: -row[number])[:3]) for row in (said, told)
        )
        expected.append(len(ours & theirs) / 3)
    np.testing.assert_allclose(weighted.top_overlap(student, teacher), expected)


@pytest.mark.parametrize(("classes", "expected"), [(1, 1), (2, 0), (3, 1 / 2), (6, 1 / 3)])
def test_the_overlap_compares_three_classes_or_all_but_one(classes, expected):
    # The student's order is the teacher's, turned by two classes.
    teacher = np.arange(classes, 0, -1, dtype=np.float32)[None]
    student = np.roll(teacher, 1 if classes == 2 else 2, axis=1)
    assert weighted.top_overlap(student, teacher)[0] == pytest.approx(expected)


@given(answers())
@settings(deadline=None, max_examples=60)
def test_the_table_of_classes_is_that_of_scikit_learn(rows):
    problem, gold, student, _ = rows
    said = decide(student, problem)
    theirs = precision_recall_fscore_support(gold, said, zero_division=np.nan)
    table = weighted.per_class(gold, said, tuple("abcd"))
    assert [row["class"] for row in table] == list("abcd")
    for number, row in enumerate(table):
        assert row["rows"] == theirs[3][number]
        for name, column in zip(("precision", "recall"), theirs, strict=False):
            expected = None if np.isnan(column[number]) else pytest.approx(column[number])
            assert row[name] == expected
        assert row["f1"] == (pytest.approx(theirs[2][number]) if row["rows"] else None)


def test_a_student_equal_to_its_teacher_diverges_by_nothing():
    logits = np.random.default_rng(0).normal(size=(20, CLASSES)).astype(np.float32)
    for problem in ("single_label", "multi_label"):
        for divergence in (weighted.kl_divergence, weighted.js_divergence):
            assert np.abs(divergence(logits, logits, problem)).max() < 1e-12
    shifted = weighted.kl_divergence(logits + 3, logits, "single_label")
    assert np.abs(shifted).max() < 1e-6  # only differences count for one label
    assert weighted.kl_divergence(logits + 3, logits, "multi_label").min() > 0.1


def test_a_divergence_is_in_nats_and_of_the_teacher():
    student, teacher = np.log(np.float32([[0.5, 0.5]])), np.log(np.float32([[0.75, 0.25]]))
    by_hand = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert weighted.kl_divergence(student, teacher, "single_label")[0] == pytest.approx(by_hand)


def test_certain_answers_that_contradict_diverge_as_far_as_can_be():
    sure, other = np.float32([[1e4, -1e4]]), np.float32([[-1e4, 1e4]])
    for problem, most in (("single_label", np.log(2)), ("multi_label", 2 * np.log(2))):
        assert weighted.js_divergence(sure, other, problem)[0] == pytest.approx(most)
        assert np.isfinite(weighted.kl_divergence(sure, other, problem)[0])


@pytest.mark.parametrize(("right", "expected"), [(True, 0), (False, 1)])
def test_sure_and_wrong_is_the_worst_calibration_and_sure_and_right_the_best(right, expected):
    statistic = weighted.calibration_error(np.ones(30), np.full(30, right))
    assert plain(statistic, 30) == pytest.approx(expected, abs=1e-6)


def test_brier_scores_run_from_zero_to_two_of_one_label_and_to_one_of_each_of_several():
    sure, gold = np.float32([[50, -50], [50, -50]]), np.array([[True, False], [False, True]])
    for problem in ("single_label", "multi_label"):
        np.testing.assert_allclose(weighted.brier_score(sure, gold, problem), [0, 2], atol=1e-9)


def test_a_class_that_gold_lacks_does_not_count_in_the_mean_of_f1():
    gold = to_decisions(np.array([0, 0, 1, 1]), 3)
    said = to_decisions(np.array([0, 0, 1, 2]), 3)
    assert weighted.count_present(gold) == 2
    found = plain(weighted.f1(gold, said, "macro_f1"), 4)
    assert found == pytest.approx((1 + 2 / 3) / 2)


def test_a_draw_without_a_class_is_scored_on_the_others():
    gold = to_decisions(np.array([0, 0, 0, 1]), 2)
    said = to_decisions(np.array([0, 0, 1, 1]), 2)
    weights = np.float32([[1, 1, 1, 1], [2, 1, 1, 0], [4, 0, 0, 0]])
    found = weighted.f1(gold, said, "macro_f1")(weights)
    assert found == pytest.approx([(4 / 5 + 2 / 3) / 2, 6 / 7, 1])


def ends_by_hand(gold, said):
    """Return the ends of macro F1 class by class, from scipy's score interval."""
    scores, below, above = [], [], []
    for truth, answer in zip(gold.T, said.T, strict=True):
        if truth.any():
            both, union = int((truth & answer).sum()), int((truth | answer).sum())
            ends = binomtest(both, union).proportion_ci(0.95, method="wilson")
            score, low, high = (2 * j / (1 + j) for j in (both / union, ends.low, ends.high))
            scores, below, above = [*scores, score], [*below, score - low], [*above, high - score]
    value, count = np.mean(scores), len(scores)
    return value - np.sqrt(np.square(below).sum()) / count, value + np.sqrt(
        np.square(above).sum()
    ) / count


@given(answers())
@settings(deadline=None, max_examples=60)
def test_the_ends_of_macro_f1_are_wilsons_by_class_and_never_leave_its_range(rows):
    problem, gold, student, teacher = rows
    said, told = decide(student, problem), decide(teacher, problem)
    low, high = weighted.macro_f1_ends(gold, [said])
    value = plain(weighted.f1(gold, said, "macro_f1"), len(gold))
    assert -1e-9 <= low <= value + 1e-6
    assert value - 1e-6 <= high <= 1 + 1e-9
    if gold.any():
        assert (low, high) == pytest.approx(ends_by_hand(gold, said), abs=1e-9)
    assert weighted.macro_f1_ends(gold, [said, said]) == pytest.approx((low, high))
    several = weighted.macro_f1_ends(gold, [said, told])
    assert several == pytest.approx(weighted.macro_f1_ends(gold, [told, said]))
    assert -1e-9 <= several[0] <= several[1] <= 1 + 1e-9


def test_one_rare_row_leaves_half_of_macro_f1_open():
    gold = to_decisions((np.arange(1000) == 0).astype(int), 2)
    low, high = weighted.macro_f1_ends(gold, [gold])
    assert low == pytest.approx(0.67, abs=0.01)  # one of one may be one of five: F1 of 0.34
    assert high == pytest.approx(1)


def test_the_bins_hold_every_row_once_and_almost_as_many_rows_each():
    bins = weighted.equal_mass_bins(np.random.default_rng(0).random(100))
    assert sorted(np.concatenate(bins)) == list(range(100))
    assert {len(rows) for rows in bins} == {6, 7}
