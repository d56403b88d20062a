import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from distill_tasks import metrics
from distill_tasks.intervals import draw_weights

CLASSES = 4


@st.composite
def answers(draw):
    """Return gold labels, student logits and teacher logits of a few rows, ties among them."""
    rows = draw(st.integers(1, 40))
    labels = arrays(np.int64, rows, elements=st.integers(0, CLASSES - 1))
    logits = arrays(np.float32, (rows, CLASSES), elements=st.floats(-8, 8, width=16))
    return draw(labels), draw(logits), draw(logits)


def plain(statistic, rows):
    return statistic(np.ones((1, rows), np.float32))[0]


def naive_f1(labels, said, present):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class of no rows in one draw
        return f1_score(labels, said, labels=present, average="macro", zero_division=0)


def naive_ece(logits, labels):
    probabilities = softmax(logits.astype(np.float64), axis=1)
    order = np.argsort(probabilities.max(axis=1), kind="stable")
    error = 0.0
    for rows in np.array_split(order, metrics.CALIBRATION_BINS):
        if len(rows):
            right = np.mean([probabilities[row].argmax() == labels[row] for row in rows])
            sure = np.mean([probabilities[row].max() for row in rows])
            error += len(rows) / len(labels) * abs(right - sure)
    return error


def naive_kl(student, teacher):
    total = 0.0
    for said, told in zip(student.astype(np.float64), teacher.astype(np.float64), strict=True):
        p, q = softmax(told), softmax(said)
        total += sum(p[number] * np.log(p[number] / q[number]) for number in range(CLASSES))
    return total / len(student)


@given(answers())
@settings(deadline=None, max_examples=60)
def test_plain_metrics_are_those_of_other_implementations(rows):
    labels, student, teacher = rows
    said = student.argmax(axis=1)
    count = len(labels)
    f1 = metrics.macro_f1(labels, said, CLASSES)
    ece = metrics.calibration_error(student, labels)
    kl = metrics.mean_divergence(student, teacher)
    assert plain(metrics.share(said == labels), count) == pytest.approx(
        accuracy_score(labels, said)
    )
    assert plain(f1, count) == pytest.approx(naive_f1(labels, said, np.unique(labels)), abs=1e-6)
    assert plain(ece, count) == pytest.approx(naive_ece(student, labels), abs=1e-5)
    assert plain(kl, count) == pytest.approx(naive_kl(student, teacher), rel=1e-4, abs=1e-5)


@given(answers(), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_a_weighted_metric_is_the_metric_of_the_rows_drawn(rows, seed):
    labels, student, teacher = rows
    said, told = student.argmax(axis=1), teacher.argmax(axis=1)
    weights = draw_weights(np.random.default_rng(seed), 3, len(labels))
    drawn = [np.repeat(np.arange(len(labels)), weight.astype(int)) for weight in weights]
    present = np.unique(labels)
    pairs = [
        (metrics.share(said == labels), lambda r: np.mean(said[r] == labels[r])),
        (metrics.macro_f1(labels, said, CLASSES), lambda r: naive_f1(labels[r], said[r], present)),
        (metrics.mean_divergence(student, teacher), lambda r: naive_kl(student[r], teacher[r])),
    ]
    for statistic, metric in pairs:
        expected = [metric(chosen) for chosen in drawn]
        np.testing.assert_allclose(statistic(weights), expected, rtol=1e-4, atol=1e-5)
    retention = metrics.ratio_of_shares(said == labels, told == labels)(weights)
    for found, chosen in zip(retention, drawn, strict=True):
        if of := np.mean(told[chosen] == labels[chosen]):
            assert found == pytest.approx(np.mean(said[chosen] == labels[chosen]) / of)


@given(answers())
@settings(deadline=None, max_examples=60)
def test_calibration_of_drawn_rows_keeps_the_bins_of_all_rows(rows):
    labels, student, _ = rows
    statistic = metrics.calibration_error(student, labels)
    twice = np.full((1, len(labels)), 2, np.float32)
    assert statistic(twice)[0] == pytest.approx(plain(statistic, len(labels)), abs=1e-6)
    assert 0 <= plain(statistic, len(labels)) <= 1 + 1e-6


@given(answers())
@settings(deadline=None, max_examples=60)
def test_the_table_of_classes_is_that_of_scikit_learn(rows):
    labels, student, _ = rows
    said = student.argmax(axis=1)
    theirs = precision_recall_fscore_support(
        labels, said, labels=range(CLASSES), zero_division=np.nan
    )
    table = metrics.per_class(labels, said, tuple("abcd"))
    assert [row["class"] for row in table] == list("abcd")
    for number, row in enumerate(table):
        assert row["rows"] == theirs[3][number]
        for name, column in zip(("precision", "recall"), theirs, strict=False):
            expected = None if np.isnan(column[number]) else pytest.approx(column[number])
            assert row[name] == expected
        assert row["f1"] == (pytest.approx(theirs[2][number]) if row["rows"] else None)


def test_a_student_equal_to_its_teacher_diverges_by_nothing():
    logits = np.random.default_rng(0).normal(size=(20, CLASSES)).astype(np.float32)
    statistic = metrics.mean_divergence(logits + 3, logits)
    assert plain(statistic, 20) == pytest.approx(0, abs=1e-6)


def test_a_divergence_is_in_nats_and_of_the_teacher():
    student, teacher = np.log(np.float32([[0.5, 0.5]])), np.log(np.float32([[0.75, 0.25]]))
    by_hand = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert plain(metrics.mean_divergence(student, teacher), 1) == pytest.approx(by_hand, rel=1e-5)


def test_sure_and_wrong_is_the_worst_calibration_and_sure_and_right_the_best():
    sure = np.tile(np.float32([[50, 0]]), (30, 1))
    for label, expected in ((0, 0), (1, 1)):
        statistic = metrics.calibration_error(sure, np.full(30, label))
        assert plain(statistic, 30) == pytest.approx(expected, abs=1e-6)


def test_log_probabilities_of_huge_logits_are_finite():
    values = metrics.log_softmax(np.float32([[1e4, -1e4], [1e30, 1e30]]))
    np.testing.assert_allclose(values, [[0, -2e4], [np.log(0.5)] * 2])
