from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax

from distill_tasks.llm.label_prior import (
    choose_prior,
    divide_by_prior,
    estimate_prior,
)


def draw_teacher(rows, bias, seed=0):
    """Return gold, and log-probabilities of a teacher that leans towards some classes."""
    generator = np.random.default_rng(seed)
    gold = generator.integers(len(bias), size=rows)
    scores = generator.normal(size=(rows, len(bias))) + 2 * np.eye(len(bias))[gold]
    return gold, log_softmax(scores + bias, axis=1)


BIAS = np.array([2.0, 0.0, -1.0])


def test_dividing_by_the_prior_is_known_for_one_row():
    divided = divide_by_prior(np.log([[0.6, 0.4]]), np.array([0.75, 0.25]))
    np.testing.assert_allclose(np.exp(divided), [[1 / 3, 2 / 3]])


def test_the_prior_is_the_mean_answer():
    prior = estimate_prior(np.log([[0.6, 0.4], [0.2, 0.8]]))
    np.testing.assert_allclose(prior, [0.4, 0.6])


@given(arrays(np.float64, (5, 3), elements=st.floats(-10, 10)))
def test_an_even_prior_changes_nothing(scores):
    values = log_softmax(scores, axis=1)
    np.testing.assert_allclose(divide_by_prior(values, np.full(3, 1 / 3)), values, atol=1e-9)


@given(arrays(np.float64, (4, 3), elements=st.floats(-10, 10)), st.permutations(range(3)))
def test_the_order_of_classes_does_not_matter(scores, order):
    values, prior = log_softmax(scores, axis=1), np.array([0.5, 0.3, 0.2])
    turned = divide_by_prior(values[:, order], prior[list(order)])
    np.testing.assert_allclose(turned, divide_by_prior(values, prior)[:, order])


def test_a_class_that_is_never_answered_keeps_finite_logarithms():
    values = np.log([[0.9, 0.1]])
    assert np.isfinite(divide_by_prior(values, np.array([1.0, 0.0]))).all()


def test_a_biased_teacher_is_divided_by_its_prior():
    _, unlabelled = draw_teacher(2000, BIAS, seed=1)
    gold, validation = draw_teacher(300, BIAS)
    choice = choose_prior(validation, gold, estimate_prior(unlabelled))
    assert choice.divide
    assert choice.divided_nll < choice.plain_nll


def test_a_teacher_without_bias_is_left_alone_where_classes_are_uneven():
    generator = np.random.default_rng(0)
    gold = generator.choice(3, 300, p=[0.8, 0.15, 0.05])
    true = log_softmax(generator.normal(size=(300, 3)) + 2 * np.eye(3)[gold], axis=1)
    posterior = np.log(softmax(true + np.log([0.8, 0.15, 0.05]), axis=1))
    choice = choose_prior(posterior, gold, estimate_prior(posterior))
    assert not choice.divide
    assert choice.divided_nll > choice.plain_nll


def test_a_gain_must_be_more_than_chance():
    """Of teachers without bias hardly one in forty is divided by a prior that is off by chance."""
    divided = 0
    for seed in range(60):
        gold, validation = draw_teacher(100, np.zeros(3), seed)
        _, unlabelled = draw_teacher(100, np.zeros(3), seed + 1000)
        divided += choose_prior(validation, gold, estimate_prior(unlabelled)).divide
    assert divided <= 4


def test_answers_are_divided_only_where_that_is_better_and_no_answer_stays_none():
    gold, validation = draw_teacher(300, BIAS)
    better = choose_prior(validation, gold, estimate_prior(validation))
    logits = np.array([[0, 0, 0], np.log([0.6, 0.3, 0.1])], np.float32)
    expected = divide_by_prior(logits[1:], np.array(better.prior))
    np.testing.assert_array_equal(better.apply(logits)[0], 0)
    np.testing.assert_allclose(better.apply(logits)[1:], expected, rtol=1e-6)
    left = replace(better, divide=False)
    np.testing.assert_array_equal(left.apply(logits), logits)
    assert left.name_answers("teacher") == "teacher" != better.name_answers("teacher")


def test_a_teacher_that_is_only_too_sure_is_no_reason_to_divide():
    gold, validation = draw_teacher(300, np.zeros(3))
    sure = log_softmax(4 * validation, axis=1)
    even = np.array([0.34, 0.33, 0.33])
    assert not choose_prior(sure, gold, even).divide
