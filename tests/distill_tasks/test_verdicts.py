import numpy as np
import pytest

from distill_tasks.verdicts import Verdict, compare_paired


def right(share, rows, seed=0):
    return np.random.default_rng(seed).permutation(rows) < share * rows


def test_a_clear_win_beats_and_a_clear_loss_does_not():
    good, poor = right(0.95, 400), right(0.7, 400, seed=1)
    assert compare_paired(good, poor).verdict is Verdict.BEATS
    assert compare_paired(poor, good).verdict is Verdict.NO_BEATS


@pytest.mark.parametrize("share", [0, 0.8, 1])
def test_identical_answers_do_not_beat(share):
    same = right(share, 300)
    comparison = compare_paired(same, same)
    assert comparison.verdict is not Verdict.BEATS
    figure = comparison.difference
    assert (figure.value, figure.low, figure.high) == (0, 0, 0)


def test_few_rows_are_inconclusive():
    good = np.array([True] * 9 + [False])
    poor = np.array([True] * 8 + [False, True])
    for first, second in ((good, poor), (poor, good)):
        assert compare_paired(first, second).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("rows", [1, 3])
def test_a_handful_of_rows_proves_nothing_even_if_all_agree(rows):
    # Exact McNemar on 3 discordant rows, all on one side: p = .25.
    won, lost = np.ones(rows, bool), np.zeros(rows, bool)
    assert compare_paired(won, lost).verdict is Verdict.INCONCLUSIVE


def test_the_difference_is_that_of_the_accuracies():
    good, poor = right(0.9, 200), right(0.75, 200, seed=1)
    comparison = compare_paired(good, poor)
    figure = comparison.difference
    assert figure.value == pytest.approx(0.15)
    assert figure.low < figure.value < figure.high
    assert figure.rows == 200
    turned = compare_paired(poor, good).difference
    assert (turned.low, turned.high) == pytest.approx((-figure.high, -figure.low))


def test_pairing_sees_what_two_separate_intervals_would_not():
    poor = right(0.5, 1000)
    good = poor.copy()
    good[np.flatnonzero(~poor)[:12]] = True  # right on 12 rows more, wrong on none
    assert compare_paired(good, poor).verdict is Verdict.BEATS


def test_the_seed_decides():
    good, poor = right(0.9, 100), right(0.85, 100, seed=1)
    first, again, other = (compare_paired(good, poor, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.difference != other.difference


def test_equal_models_rarely_beat_each_other():
    generator = np.random.default_rng(0)
    verdicts = []
    for seed in range(400):
        difficulty = generator.random(150)  # hard rows are hard for both
        one, other = (generator.random(150) > 0.4 * difficulty for _ in range(2))
        verdicts.append(compare_paired(one, other, seed).verdict)
    assert verdicts.count(Verdict.BEATS) / 400 < 0.05  # 2.5 % are expected
    assert verdicts.count(Verdict.INCONCLUSIVE) / 400 > 0.9


def test_a_better_model_usually_beats_given_the_rows():
    generator = np.random.default_rng(0)
    wins = sum(
        compare_paired(generator.random(400) < 0.9, generator.random(400) < 0.8, seed).verdict
        is Verdict.BEATS
        for seed in range(100)
    )
    assert wins > 90
