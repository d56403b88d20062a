import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, permutation_test
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower

from distill_tasks.problems.classification import to_decisions
from distill_tasks.scoring.intervals import Figure, plain_value
from distill_tasks.scoring.statistics import mean, quality
from distill_tasks.scoring.verdicts import (
    DISCORDANT_SHARE,
    Verdict,
    compare_answers,
    correct_holm,
    decide,
    estimate_ratio,
    flip_signs,
    name_scarce,
    rows_for,
    rows_needed,
    smallest_difference,
    swap_answers,
)


def right(share, rows, seed=0):
    return np.random.default_rng(seed).permutation(rows) < share * rows


def compare(first, second, seed=0):
    """Compare two models, each of one seed, by which rows they get right."""
    gold = np.ones((len(first), 1), bool)
    return compare_answers(gold, [first[:, None]], [second[:, None]], seed=seed)


def flip_all(first, second):
    """Return the share of all 2^rows sign flips that give a mean difference at least as large."""
    scores = first.sum(axis=0) * len(second) - second.sum(axis=0) * len(first)
    flips = np.array(list(itertools.product([1, -1], repeat=len(scores))))
    return np.mean(np.abs(flips @ scores) >= abs(scores.sum()))


@given(arrays(bool, st.tuples(st.just(2), st.integers(1, 60))))
@settings(deadline=None, max_examples=80)
def test_of_one_seed_each_the_test_is_the_exact_mcnemar_of_statsmodels_and_scipy(hits):
    first, second = hits
    found = flip_signs(hits[:1], hits[1:])
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    table = [[int((first & second).sum()), won], [lost, int((~first & ~second).sum())]]
    if won + lost == 0:
        assert found == 1
        return
    assert found == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert found == pytest.approx(binomtest(won, won + lost).pvalue)


@given(
    st.integers(1, 10).flatmap(
        lambda rows: st.tuples(
            arrays(bool, st.tuples(st.integers(1, 4), st.just(rows))),
            arrays(bool, st.tuples(st.integers(1, 4), st.just(rows))),
        )
    )
)
@settings(deadline=None, max_examples=80)
def test_of_several_seeds_the_test_is_every_flip_of_signs_counted(models):
    first, second = models
    found = flip_signs(first, second)
    assert found == pytest.approx(flip_all(first, second))
    assert found == pytest.approx(flip_signs(second, first))
    assert found == pytest.approx(flip_signs(np.repeat(first, 2, axis=0), second))


def test_of_several_seeds_the_test_is_the_permutation_test_of_scipy():
    generator = np.random.default_rng(0)
    first, second = generator.random((3, 12)) < 0.8, generator.random((2, 12)) < 0.5
    theirs = permutation_test(
        (first.mean(axis=0), second.mean(axis=0)),
        lambda one, other: np.mean(one - other),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert flip_signs(first, second) == pytest.approx(theirs.pvalue)


def test_a_p_value_of_many_rows_and_seeds_stays_a_probability():
    generator = np.random.default_rng(0)
    equal, other = generator.random((3, 20_000)) < 0.8, generator.random((3, 20_000)) < 0.8
    assert 0.001 < flip_signs(equal, other) <= 1
    assert flip_signs(np.ones((3, 20_000), bool), other) < 1e-300


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
def test_of_f1_the_test_is_the_permutation_test_of_scipy_on_the_scores_of_scikit_learn(average):
    gold, first = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 1, 2])
    second = np.array([0, 1, 2, 1, 1, 0, 0])
    theirs = permutation_test(
        (first, second),
        lambda one, other: (
            f1_score(gold, one, average=average) - f1_score(gold, other, average=average)
        ),
        permutation_type="samples",
        vectorized=False,
        n_resamples=np.inf,
    )
    truth, ours, other = (to_decisions(each, 3) for each in (gold, first, second))
    found = swap_answers(truth, [ours], [other], f"{average}_f1", seed=0)
    assert found == pytest.approx(theirs.pvalue)


def every_swap(gold, first, second, metric):
    """Return the share of all ways to swap rows that give a gap as large, by the plain metric."""
    gaps = []
    for swapped in itertools.product([False, True], repeat=len(gold)):
        turn = np.array(swapped)[:, None]
        pairs = zip(first, second, strict=True)
        mixed = [(np.where(turn, b, a), np.where(turn, a, b)) for a, b in pairs]
        scores = [[plain_value(quality(metric, gold, x), len(gold)) for x in two] for two in mixed]
        gaps.append(abs(np.mean([ours - theirs for ours, theirs in scores])))
    return np.mean(np.array(gaps) >= gaps[0] - 1e-9)


@st.composite
def small_answers(draw):
    """Return gold and the answers of some seeds of two models to a few rows (rows, classes)."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    seeds = draw(st.integers(1, 2))
    groups = [[draw(arrays(bool, shape)) for _ in range(seeds)] for _ in range(2)]
    return draw(arrays(bool, shape)), *groups


F1_METRICS = ("macro_f1", "weighted_f1", "micro_f1")


@given(small_answers(), st.sampled_from(F1_METRICS))
@settings(deadline=None, max_examples=60)
def test_of_few_rows_every_swap_is_tried(answers, metric):
    gold, first, second = answers
    found = swap_answers(gold, first, second, metric, seed=0)
    assert found == pytest.approx(every_swap(gold, first, second, metric))
    assert found == pytest.approx(swap_answers(gold, second, first, metric, seed=1))
    twice = swap_answers(gold, first * 2, second, metric, seed=0)
    if len(first) == 1:  # a seed given twice says no more than once
        assert twice == pytest.approx(found)


@given(small_answers(), st.sampled_from(F1_METRICS))
@settings(deadline=None, max_examples=60)
def test_of_f1_figures_stay_in_their_range_and_a_difference_without_proof_reaches_zero(
    answers, metric
):
    gold, first, second = answers
    found = compare_answers(gold, first, second, metric)
    gap = found.difference
    assert -1 <= gap.low <= gap.high <= 1
    assert 0 < found.p_value <= 1
    if found.p_value >= 0.05:
        assert gap.low <= 0 <= gap.high
        assert found.verdict is not Verdict.BEATS


def rare_rows(count, rows):
    """Return gold of two classes, ``count`` rows of the rare one, and the answer `never rare`."""
    gold = to_decisions((np.arange(rows) < count).astype(int), 2)
    return gold, to_decisions(np.zeros(rows, int), 2)


@pytest.mark.parametrize("rows", [90, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 10])
def test_macro_f1_of_rare_rows_is_called_once_they_are_six(count, rows):
    gold, never = rare_rows(count, rows)
    found = compare_answers(gold, [gold], [never], "macro_f1")
    assert found.p_value == pytest.approx(2 * 0.5**count)
    assert found.difference.value == pytest.approx(0.5, abs=0.03)
    assert found.verdict is (Verdict.BEATS if count >= 6 else Verdict.INCONCLUSIVE)
    assert -1 <= found.difference.low <= found.difference.high <= 1


def test_drawn_swaps_agree_with_the_exact_ones():
    gold, never = rare_rows(14, 40)
    found = compare_answers(gold, [gold], [never], "macro_f1").p_value  # 2¹⁴ swaps: some are drawn
    assert found <= 0.001
    half = gold.copy()
    half[::2] = never[::2]
    both = never.copy()
    both[:14:4] = gold[:14:4]
    drawn = swap_answers(gold, [half], [both], "micro_f1", seed=0)
    exact = flip_signs(*((said == gold).all(axis=1)[None] for said in (half, both)))
    assert drawn == pytest.approx(exact, abs=0.02)


def test_a_class_with_too_few_rows_for_a_verdict_is_named_with_its_rows():
    gold = to_decisions(np.repeat(np.arange(5), [20, 1, 5, 6, 0]), 5)
    classes = ("refund", "fraud", "theft", "loss", "other")
    assert name_scarce(gold, classes, "macro_f1") == (
        "held-out has too few rows of fraud (1), theft (5): macro F1 counts every class alike, and "
        "fewer than 6 rows decide nothing"
    )
    assert name_scarce(gold, classes, "weighted_f1") == ""
    assert name_scarce(gold[:20], classes, "macro_f1") == ""


def say(generator, gold, chances):
    """Return answers (rows, 2) that are right with the chance of their row's class."""
    hit = generator.random(len(gold)) < np.where(gold[:, 1], chances[1], chances[0])
    return np.where(hit[:, None], gold, ~gold)


def count_beats(count, first, second, sets=60):
    """Return the share of sets of a thousand rows, ``count`` of them rare, called BEATS."""
    generator, gold = np.random.default_rng(0), rare_rows(count, 1000)[0]
    verdicts = [
        compare_answers(
            gold, [say(generator, gold, first)], [say(generator, gold, second)], "macro_f1", seed
        ).verdict
        for seed in range(sets)
    ]
    return verdicts.count(Verdict.BEATS) / sets


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_equal_models_rarely_beat_each_other_by_a_rare_class(count):
    assert count_beats(count, (0.998, 0.5), (0.998, 0.5)) <= 0.05


def test_a_model_that_knows_a_rare_class_better_beats_given_its_rows():
    assert count_beats(150, (0.98, 0.9), (0.98, 0.7)) > 0.8


def ratio_of(student, control, teacher):
    return estimate_ratio(mean(student), mean(control), mean(teacher), len(student), seed=0)


def test_the_distillation_ratio_is_the_share_of_the_teachers_lead_that_the_student_has():
    control, teacher = right(0.7, 500), right(0.9, 500, seed=1)
    student = np.where(right(0.6, 500, seed=2), teacher, control)
    lead, ratio = ratio_of(student, control, teacher)
    assert lead == compare(teacher, control).difference
    expected = (student.mean() - control.mean()) / (teacher.mean() - control.mean())
    assert ratio.value == pytest.approx(expected)
    assert ratio.low < ratio.value < ratio.high
    for other, whole in ((teacher, 1), (control, 0)):
        _, exact = ratio_of(other, control, teacher)
        assert (exact.value, exact.low, exact.high) == pytest.approx((whole, whole, whole))


def test_there_is_no_distillation_ratio_where_the_teachers_lead_is_within_noise():
    equal, other = right(0.8, 200), right(0.8, 200, seed=1)
    for control, teacher in ((equal, other), (equal, equal), (right(0.9, 200), equal)):
        lead, ratio = ratio_of(other, control, teacher)
        assert lead.low <= 0
        assert ratio is None


def test_the_interval_of_the_distillation_ratio_bears_draws_without_any_lead():
    control = np.arange(40) < 20
    teacher, student = control.copy(), control.copy()
    teacher[20:25] = student[23:28] = True  # one draw in 200 holds none of the teacher's five
    _, ratio = ratio_of(student, control, teacher)
    assert ratio.value == pytest.approx(1)
    assert 0 < ratio.low < 1 < ratio.high < 10


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None, max_examples=15)  # statsmodels collects garbage in every call
def test_the_correction_is_holms_of_statsmodels(p_values):
    assert correct_holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_no_comparison_needs_no_correction():
    assert correct_holm([]) == []


@pytest.mark.parametrize(
    ("low", "high", "p_value", "verdict"),
    [
        (0.01, 0.03, 0.01, Verdict.BEATS),
        (0.01, 0.03, 0.05, Verdict.INCONCLUSIVE),
        (0.0, 0.03, 0.01, Verdict.INCONCLUSIVE),
        (-0.03, 0.01, 0.5, Verdict.INCONCLUSIVE),
        (-0.03, 0.0, 0.01, Verdict.NO_BEATS),
        (0.0, 0.0, 1.0, Verdict.NO_BEATS),
    ],
)
def test_a_verdict_needs_interval_and_test_to_agree(low, high, p_value, verdict):
    assert decide(Figure((low + high) / 2, low, high, 100), p_value) is verdict


def test_a_clear_win_beats_and_a_clear_loss_does_not():
    good, poor = right(0.95, 400), right(0.7, 400, seed=1)
    assert compare(good, poor).verdict is Verdict.BEATS
    assert compare(poor, good).verdict is Verdict.NO_BEATS


@pytest.mark.parametrize("share", [0, 0.8, 1])
def test_identical_answers_do_not_beat(share):
    same = right(share, 300)
    comparison = compare(same, same)
    assert comparison.verdict is not Verdict.BEATS
    assert comparison.p_value == 1
    figure = comparison.difference
    assert (figure.value, figure.low, figure.high) == (0, 0, 0)


def test_few_rows_are_inconclusive():
    good = np.array([True] * 9 + [False])
    poor = np.array([True] * 8 + [False, True])
    for first, second in ((good, poor), (poor, good)):
        assert compare(first, second).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("rows", [1, 3])
def test_a_handful_of_rows_proves_nothing_even_if_all_agree(rows):
    # Exact McNemar on 3 discordant rows, all on one side: p = .25.
    won, lost = np.ones(rows, bool), np.zeros(rows, bool)
    assert compare(won, lost).verdict is Verdict.INCONCLUSIVE


def test_the_difference_is_that_of_the_accuracies():
    good, poor = right(0.9, 200), right(0.75, 200, seed=1)
    figure = compare(good, poor).difference
    assert figure.value == pytest.approx(0.15)
    assert figure.low < figure.value < figure.high
    assert figure.rows == 200
    turned = compare(poor, good).difference
    assert (turned.low, turned.high) == pytest.approx((-figure.high, -figure.low))


def test_pairing_sees_what_two_separate_intervals_would_not():
    poor = right(0.5, 1000)
    good = poor.copy()
    good[np.flatnonzero(~poor)[:12]] = True  # right on 12 rows more, wrong on none
    assert compare(good, poor).verdict is Verdict.BEATS


def test_the_seed_decides():
    good, poor = right(0.9, 100), right(0.85, 100, seed=1)
    first, again, other = (compare(good, poor, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.difference != other.difference


def test_several_seeds_count_as_the_mean_of_their_figures():
    generator = np.random.default_rng(0)
    gold = to_decisions(generator.integers(3, size=300), 3)
    first, second = (
        [to_decisions(generator.integers(3, size=300), 3) for _ in range(count)] for count in (2, 3)
    )
    for metric, average in (("macro_f1", "macro"), ("weighted_f1", "weighted")):
        ours, theirs = (
            np.mean([f1_score(gold, said, average=average) for said in group])
            for group in (first, second)
        )
        found = compare_answers(gold, first, second, metric).difference.value
        assert found == pytest.approx(ours - theirs, abs=1e-6)
    hits = [np.array([(said == gold).all(axis=1) for said in group]) for group in (first, second)]
    comparison = compare_answers(gold, first, second)
    assert comparison.difference.value == pytest.approx(hits[0].mean() - hits[1].mean(), abs=1e-6)
    assert comparison.p_value == flip_signs(*hits)


def test_a_seed_given_twice_says_no_more_than_once():
    gold, good, poor = (
        np.ones((100, 1), bool),
        right(0.9, 100)[:, None],
        right(0.8, 100, 1)[:, None],
    )
    once = compare_answers(gold, [good], [poor])
    twice = compare_answers(gold, [good] * 2, [poor] * 2)
    assert twice.p_value == pytest.approx(once.p_value)
    assert twice.difference.low == pytest.approx(once.difference.low)


def test_of_several_labels_a_row_counts_where_all_of_them_are_right():
    gold = np.array([[True, False], [True, True]] * 20)
    half, none = gold.copy(), ~gold
    half[::2, 1] = True
    comparison = compare_answers(gold, [half], [none])
    assert comparison.difference.value == pytest.approx(0.5)
    assert comparison.p_value == pytest.approx(2 * 0.5**20)


@pytest.mark.parametrize("metric", ["macro_f1", "weighted_f1", "micro_f1"])
def test_of_f1_the_p_value_agrees_with_the_interval(metric):
    generator = np.random.default_rng(0)
    for lead in np.linspace(-0.1, 0.2, 13):
        truth = generator.integers(3, size=200)
        answers = []
        for share in (0.7 + lead, 0.7):
            guess = np.where(generator.random(200) < share, truth, generator.integers(3, size=200))
            answers.append([to_decisions(guess, 3)])
        found = compare_answers(to_decisions(truth, 3), *answers, metric)
        if abs(found.p_value - 0.05) > 0.004:  # the grain of a thousand draws
            excludes_zero = found.difference.low > 0 or found.difference.high < 0
            assert (found.p_value < 0.05) == excludes_zero


def test_of_f1_identical_answers_have_a_p_value_of_one():
    gold = to_decisions(np.arange(30) % 3, 3)
    assert compare_answers(gold, [gold], [gold], "macro_f1").p_value == 1


def test_equal_models_rarely_beat_each_other():
    generator = np.random.default_rng(0)
    verdicts = []
    for seed in range(300):
        difficulty = generator.random(150)  # hard rows are hard for both
        one, other = (generator.random(150) > 0.4 * difficulty for _ in range(2))
        verdicts.append(compare(one, other, seed).verdict)
    assert verdicts.count(Verdict.BEATS) / 300 < 0.05  # 2.5 % are expected
    assert verdicts.count(Verdict.INCONCLUSIVE) / 300 > 0.9


def test_a_better_model_usually_beats_given_the_rows():
    generator = np.random.default_rng(0)
    wins = sum(
        compare(generator.random(400) < 0.9, generator.random(400) < 0.8, seed).verdict
        is Verdict.BEATS
        for seed in range(100)
    )
    assert wins > 90


@pytest.mark.parametrize("gap", [Figure(0.01, -0.01, 0.03, 500), Figure(0.002, -0.03, 0.034, 2000)])
def test_the_rows_needed_are_those_of_the_power_analysis_of_statsmodels(gap):
    deviation = (gap.high - gap.low) / (2 * 1.959964) * np.sqrt(gap.rows)
    theirs = NormalIndPower().solve_power(gap.value / deviation, alpha=0.05, power=0.8, ratio=0)
    assert rows_needed(gap) == pytest.approx(theirs, rel=1e-4, abs=1)


def test_no_number_of_rows_shows_that_an_equal_or_worse_model_is_better():
    assert rows_needed(Figure(0.0, -0.1, 0.1, 100)) is None
    assert rows_needed(Figure(-0.01, -0.1, 0.1, 100)) is None


@pytest.mark.parametrize("rows", [100, 2189, 50_000])
def test_the_smallest_difference_is_that_of_the_power_analysis_of_statsmodels(rows):
    effect = NormalIndPower().solve_power(nobs1=rows, alpha=0.05, power=0.8, ratio=0)
    assert smallest_difference(rows) == pytest.approx(effect * np.sqrt(DISCORDANT_SHARE), rel=1e-3)


@given(st.floats(0.001, 0.5))
@settings(deadline=None, max_examples=40)
def test_the_rows_for_a_difference_are_the_fewest_that_can_call_it(gap):
    rows = rows_for(gap)
    assert smallest_difference(rows) <= gap * (1 + 1e-9)
    assert rows == 1 or smallest_difference(rows - 1) > gap * (1 - 1e-9)


def test_the_smallest_difference_is_called_about_four_times_in_five():
    rows, generator = 1000, np.random.default_rng(0)
    lead = smallest_difference(rows)
    wins = 0
    for seed in range(150):
        kind = generator.choice(
            4, rows, p=[(DISCORDANT_SHARE + lead) / 2, (DISCORDANT_SHARE - lead) / 2, 0.8, 0.1]
        )
        verdict = compare((kind == 0) | (kind == 2), (kind == 1) | (kind == 2), seed).verdict
        wins += verdict is Verdict.BEATS
    assert 0.7 < wins / 150 < 0.9
