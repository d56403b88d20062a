import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax

from distill_tasks.llm.label_prior import (
    FEWEST_ROWS,
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


@pytest.mark.parametrize("rows", [1, FEWEST_ROWS - 1])
def test_few_rows_decide_nothing(rows):
    _, unlabelled = draw_teacher(2000, BIAS, seed=1)
    gold, validation = draw_teacher(rows, BIAS)
    assert not choose_prior(validation, gold, estimate_prior(unlabelled)).divide


def test_a_teacher_that_is_only_too_sure_is_no_reason_to_divide():
    gold, validation = draw_teacher(300, np.zeros(3))
    sure = log_softmax(4 * validation, axis=1)
    even = np.array([0.34, 0.33, 0.33])
    assert not choose_prior(sure, gold, even).divide
