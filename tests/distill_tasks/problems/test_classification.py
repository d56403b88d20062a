import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.utils.class_weight import compute_class_weight

from distill_tasks.problems.classification import (
    are_one_hot,
    balance_classes,
    confidence,
    decide,
    log_probabilities,
    name_labels,
    probabilities,
    to_decisions,
)

matrices = array_shapes(min_dims=2, max_dims=2, max_side=5).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-30, 30, width=32))
)
problems = st.sampled_from(["single_label", "multi_label"])
temperatures = st.sampled_from([0.1, 1.0, 3.0])


def test_gold_of_either_kind_becomes_the_matrix_of_classes_that_are_there():
    single = to_decisions(np.array([2, 0]), 3)
    assert single.tolist() == [[False, False, True], [True, False, False]]
    several = to_decisions(np.array([[1, 1, 0], [0, 0, 0]]), 3)
    assert several.tolist() == [[True, True, False], [False, False, False]]


@given(matrices, problems, temperatures)
@settings(deadline=None, max_examples=40)
def test_probabilities_are_those_of_torch(logits, problem, temperature):
    scaled = torch.from_numpy(logits).double() / temperature
    theirs = scaled.softmax(1) if problem == "single_label" else scaled.sigmoid()
    np.testing.assert_allclose(
        probabilities(logits, problem, temperature), theirs, rtol=1e-9, atol=1e-300
    )


def test_log_probabilities_of_huge_logits_are_finite():
    huge = np.float32([[1e4, -1e4], [1e30, 1e30]])
    np.testing.assert_allclose(
        log_probabilities(huge, "single_label"), [[0, -2e4], [np.log(0.5)] * 2]
    )
    np.testing.assert_allclose(log_probabilities(huge, "multi_label"), [[0, -1e4], [0, 0]])


def test_the_highest_of_one_label_and_all_from_their_threshold_of_several_are_there():
    logits = np.float32([[-3, -1, -2], [0, 5, 0.5]])
    assert decide(logits, "single_label").argmax(axis=1).tolist() == [1, 1]
    assert decide(logits, "multi_label").tolist() == [[False] * 3, [True] * 3]
    limits = np.array([0.01, 0.999, 0.5])
    assert decide(logits, "multi_label", limits).tolist() == [
        [True, False, False],
        [True, False, True],
    ]


@given(matrices, temperatures)
@settings(deadline=None, max_examples=40)
def test_the_confidences_of_all_possible_answers_sum_to_one(logits, temperature):
    classes = logits.shape[1]
    possible = {
        "single_label": np.eye(classes, dtype=bool),
        "multi_label": np.array(list(itertools.product([False, True], repeat=classes))),
    }
    for problem, answers in possible.items():
        total = sum(
            confidence(logits, np.tile(answer, (len(logits), 1)), problem, temperature)
            for answer in answers
        )
        np.testing.assert_allclose(total, 1)


def test_confidence_is_the_probability_of_the_whole_answer():
    logits = np.log(np.float32([[3, 1 / 3]]))  # sigmoids .75 and .25, softmax .9 and .1
    for problem, expected in (("single_label", 0.9), ("multi_label", 0.75 * 0.75)):
        sure = confidence(logits, decide(logits, problem), problem)
        assert sure[0] == pytest.approx(expected, rel=1e-6)


def test_labels_are_named_in_class_order_and_none_is_an_empty_name():
    decisions = np.array([[True, False, True], [False] * 3, [False, True, False]])
    assert name_labels(decisions, ("a", "b", "c")) == ["a|c", "", "b"]


@given(arrays(np.int64, st.integers(3, 40), elements=st.integers(-1, 2)))
@settings(deadline=None, max_examples=40)
def test_class_weights_of_one_label_are_those_of_scikit_learn(gold):
    weights, known = balance_classes(gold, 3), gold[gold >= 0]
    present = np.unique(known)
    if len(present) == 3:
        theirs = compute_class_weight("balanced", classes=present, y=known)
        np.testing.assert_allclose(weights, theirs, rtol=1e-6)
    assert (weights[np.setdiff1d(range(3), present)] == 1).all()
    totals = [weights[number] * (known == number).sum() for number in present]
    np.testing.assert_allclose(totals, len(known) / 3, rtol=1e-6)


@given(arrays(np.int64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(0, 1)))
@settings(deadline=None, max_examples=40)
def test_the_ones_of_each_of_several_labels_weigh_as_much_as_its_zeros(gold):
    weights = balance_classes(np.vstack([gold, np.full((2, 3), -1)]), 3)
    ones = gold.sum(axis=0)
    for weight, one, zero in zip(weights, ones, len(gold) - ones, strict=True):
        assert weight * one == pytest.approx(zero) if one and zero else weight == 1


@pytest.mark.parametrize("gold", [np.full(4, -1), np.full((4, 3), -1), np.empty(0, np.int64)])
def test_without_any_gold_every_class_weighs_one(gold):
    assert balance_classes(gold, 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("problem", "rows", "hard"),
    [
        ("single_label", [[0, -14, -14], [-14, 0, -14]], True),
        ("single_label", [[0, -14, -14], [-6, 0, -14]], False),  # 400 to 1
        ("single_label", [[7, 0], [0, 7]], True),
        ("single_label", [[5, 5, -20]], False),
        ("multi_label", [[-14, 14, 14], [-14, -14, -14]], True),
        ("multi_label", [[-14, 14, 2]], False),
    ],
)
def test_answers_are_one_hot_where_each_is_a_thousand_times_likelier_than_any_other(
    problem, rows, hard
):
    assert are_one_hot(np.array(rows, np.float32), problem) is hard
