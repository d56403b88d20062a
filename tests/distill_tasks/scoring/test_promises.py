import numpy as np
import pytest
from builders import make_eval_split, predict_surely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from distill_tasks.scoring.intervals import plain_value
from distill_tasks.scoring.promises import (
    ERROR,
    Promise,
    check_promises,
    measure,
    share_error,
)

CLASSES = ("a", "b", "c")


def one_hot(numbers):
    return np.eye(3, dtype=bool)[np.asarray(numbers)]


def answers(gold, wrong):
    """Predictions that are wrong in some rows, by their numbers."""
    said = np.array(gold)
    said[wrong] = (said[wrong] + 1) % 3
    return predict_surely(one_hot(said))


def check(gold, ours, teacher, *promises, error=0.025, **split):
    rows = make_eval_split(gold, teacher, CLASSES, **split)
    return check_promises(promises, rows, ours, error=error, seed=3)


GOLD = np.repeat([0, 1, 2], [100, 60, 40])


@pytest.mark.parametrize("error", [0.025, 0.05])
def test_the_interval_of_a_share_is_the_exact_one(error):
    ours, teacher = answers(GOLD, [3, 4, 120, 199]), answers(GOLD, [3])
    recall = Promise("class_recall", 0.9, "c")
    overall, of_class = check(GOLD, ours, teacher, Promise("accuracy", 0.9), recall, error=error)
    for test, right, rows in ((overall, 196, 200), (of_class, 39, 40)):
        assert test.value == pytest.approx(right / rows)
        assert test.rows == rows
        exact = beta.ppf([error, 1 - error], [right, right + 1], [rows - right + 1, rows - right])
        assert [test.low, test.high] == pytest.approx(exact, abs=0.003)


def test_f1_of_a_class_follows_from_the_share_that_is_both():
    (test,) = check(
        GOLD, answers(GOLD, [170, 180]), answers(GOLD, []), Promise("class_f1", 0.9, "c")
    )
    assert test.value == pytest.approx(2 * 38 / (40 + 38))
    low, high = beta.ppf([0.025, 0.975], [38, 39], [3, 2])
    assert [test.low, test.high] == pytest.approx(
        [2 * low / (1 + low), 2 * high / (1 + high)], abs=4e-3
    )


def test_retention_is_the_share_of_the_teachers_quality():
    ours, teacher = answers(GOLD, range(20)), answers(GOLD, range(10, 20))
    (test,) = check(GOLD, ours, teacher, Promise("retention", 0.98))
    assert test.value == pytest.approx(180 / 190)
    assert not test.surely_broken
    assert check(GOLD, ours, teacher, Promise("retention", 0.99))[0].surely_broken
    (test,) = check(GOLD, ours, teacher, Promise("retention", 0.93))
    assert test.low < 0.93 < test.value
    assert (test.is_kept("point"), test.is_kept("surely")) == (True, False)
    (macro,) = check(GOLD, ours, teacher, Promise("retention", 0.5), metric="macro_f1")
    assert macro.value != test.value
    assert macro.is_kept("surely")


def test_one_that_answers_as_the_teacher_keeps_all_of_it_but_not_surely():
    ours = answers(GOLD, [3])
    (test,) = check(GOLD, ours, ours, Promise("retention", 1.0))
    assert test.value == 1 > test.low
    assert test.is_kept("point")
    assert not test.is_kept("surely")


def test_without_gold_a_promise_is_about_agreement_and_says_so():
    teacher = answers(GOLD, [])
    none = np.full(len(GOLD), -1)
    (test,) = check(none, answers(GOLD, [1, 2]), teacher, Promise("retention", 0.9))
    assert test.agreement
    assert test.value == pytest.approx(0.99)
    assert "(agreement with the teacher: there is no gold)" in str(test)


def test_a_class_without_rows_keeps_no_promise_and_surely_breaks_none():
    gold = np.repeat([0, 1], 20)
    (test,) = check(gold, answers(gold, []), answers(gold, []), Promise("class_recall", 0.5, "c"))
    assert test.rows == 0
    assert not test.is_kept("point")
    assert not test.is_kept("surely")
    assert not test.surely_broken


def test_several_labels_are_promised_alike():
    gold = np.stack([np.arange(60) % 2, np.arange(60) % 3 == 0, np.ones(60)], axis=1).astype(int)
    said = gold.astype(bool)
    said[:6, 0] ^= True
    rows = make_eval_split(gold, predict_surely(gold), CLASSES, "multi_label")
    promises = (Promise("accuracy", 0.9), Promise("class_recall", 0.9, "a"))
    exact, of_class = check_promises(promises, rows, predict_surely(said), error=0.05, seed=0)
    assert exact.value == pytest.approx(0.9)
    assert of_class.value == pytest.approx(27 / 30)


@pytest.mark.parametrize(
    ("finalists", "shares"), [(1, [0.05]), (2, [0.025] * 2), (3, [0.025, 0.0125, 0.0125])]
)
def test_the_error_is_shared_over_the_finalists_and_never_exceeds_what_is_allowed(
    finalists, shares
):
    assert share_error(finalists) == pytest.approx(shares)
    assert sum(share_error(finalists + 7)) == pytest.approx(ERROR)


@given(st.floats(0.05, 0.995))
def test_the_rows_needed_are_the_fewest_whose_perfect_score_surely_keeps_the_promise(least):
    needed = Promise("accuracy", least).rows_needed
    assert beta.ppf(ERROR, needed, 1) >= least - 1e-9
    assert needed == 1 or beta.ppf(ERROR, needed - 1, 1) < least + 1e-9
    assert Promise("accuracy", 1.0).rows_needed is None


measures = st.sampled_from(["retention", "accuracy", "macro_f1", "weighted_f1", "micro_f1"])
rows_of_three = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=3, max_size=40)


@given(rows_of_three, measures)
@settings(deadline=None, max_examples=40)
def test_an_interval_holds_its_estimate_and_a_surer_one_is_wider(triples, name):
    gold, ours, teacher = (np.array(part) for part in zip(*triples, strict=True))
    rows = make_eval_split(gold, predict_surely(one_hot(teacher)), CLASSES)
    promise, said = Promise(name, 0.5), predict_surely(one_hot(ours))
    (test,) = check_promises([promise], rows, said, error=0.1, seed=0)
    (surer,) = check_promises([promise], rows, said, error=0.01, seed=0)
    if (gold == teacher).any() or name != "retention":
        assert test.low <= test.value + 1e-6
        assert test.value <= test.high + 1e-6 or name == "retention"
    assert surer.low <= test.low
    assert surer.high >= test.high
    assert plain_value(measure(promise, rows, said).statistic, len(gold)) == test.value
