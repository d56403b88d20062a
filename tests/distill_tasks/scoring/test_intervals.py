import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from distill_tasks.scoring import intervals
from distill_tasks.scoring.intervals import (
    DRAWS,
    LEVEL,
    Figure,
    bootstrap,
    draw_weights,
    estimate,
    exact_share,
    find_bias,
    find_interval,
    lowest_gaps,
    subtract_shares,
    wilson,
)
from distill_tasks.scoring.statistics import calibration_error, difference


def mean_of(values):
    return lambda weights: weights @ values / weights.sum(axis=1)


@pytest.mark.parametrize("kind", ["hits", "normal", "skewed"])
def test_the_interval_is_the_percentile_bootstrap_of_scipy(kind):
    generator = np.random.default_rng(3)
    values = {
        "hits": (generator.random(2000) < 0.9).astype(float),
        "normal": generator.normal(size=100),
        "skewed": generator.exponential(size=150),
    }[kind]
    rows = len(values)
    figures = [estimate({"mean": mean_of(values)}, rows, seed)["mean"] for seed in range(10)]
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=1, confidence_level=LEVEL
    )
    # The 2.5 % quantile of 1000 draws is off by .085 standard errors, the mean of ten by .027.
    tolerance = 0.1 * theirs.standard_error
    low, high = (np.mean([getattr(f, end) for f in figures]) for end in ("low", "high"))
    assert low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)
    assert figures[0].value == pytest.approx(values.mean())
    assert figures[0].rows == rows


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        values = generator.normal(size=100)
        figure = estimate({"mean": mean_of(values)}, 100, seed)["mean"]
        covered += figure.low <= 0 <= figure.high
    assert 0.89 <= covered / 200 <= 0.99


def test_each_draw_takes_as_many_rows_as_there_are():
    weights = draw_weights(np.random.default_rng(0), draws=50, rows=30)
    assert weights.shape == (50, 30)
    assert weights.dtype == np.float32
    assert (weights.sum(axis=1) == 30).all()
    assert (weights >= 0).all()
    assert len(np.unique(weights, axis=0)) == 50


def test_every_row_is_drawn_as_often_as_any_other():
    counts = draw_weights(np.random.default_rng(0), draws=2000, rows=10).sum(axis=0)
    assert stats.chisquare(counts).pvalue > 0.001


def test_the_seed_decides_the_interval():
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (estimate({"mean": mean_of(values)}, 50, seed) for seed in (1, 1, 2))
    assert first == again
    assert first["mean"].low != other["mean"].low
    assert first["mean"].value == other["mean"].value


def test_every_statistic_sees_the_same_draws():
    values = np.random.default_rng(0).normal(size=50)
    seen = []

    def spy(weights):
        seen.append(weights.copy())
        return mean_of(values)(weights)

    both = estimate({"one": spy, "other": mean_of(values)}, 50, seed=0)
    assert both["one"] == both["other"]
    assert sum(len(weights) for weights in seen) == DRAWS + 1


def test_more_rows_narrow_the_interval():
    widths = []
    for rows in (50, 5000):
        figure = estimate({"mean": mean_of(np.arange(rows) % 2)}, rows, seed=0)["mean"]
        widths.append(figure.high - figure.low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.2)


def test_the_interval_is_the_middle_of_the_draws():
    draws = np.linspace(0, 1, 1001)
    assert find_interval(draws) == pytest.approx((0.025, 0.975))
    assert find_interval(draws**2) == pytest.approx((0.025**2, 0.975**2), 1e-3)


@given(st.integers(1, 400), st.integers(0, 400))
@settings(deadline=None, max_examples=60)
def test_the_score_interval_is_wilsons_of_scipy_and_statsmodels(trials, hits):
    hits = min(hits, trials)
    found = wilson(np.array([hits / trials]), np.array([float(trials)]))
    theirs = stats.binomtest(hits, trials).proportion_ci(LEVEL, method="wilson")
    assert (found[0][0], found[1][0]) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    again = proportion_confint(hits, trials, 1 - LEVEL, method="wilson")
    assert (found[0][0], found[1][0]) == pytest.approx(again, abs=1e-9)


def test_one_row_that_came_out_right_says_little_of_the_next():
    # Wilson's interval of 1 of 1 is [1 / (1 + z²), 1], z being 1.96.
    assert wilson(np.ones(1), np.ones(1))[0][0] == pytest.approx(1 / (1 + 1.959964**2), abs=1e-6)


def test_a_shift_that_may_be_chance_is_no_bias():
    draws = np.random.default_rng(0).normal(size=1000)
    draws -= draws.mean()
    # The mean of a thousand draws is known to about .03 of their deviation.
    assert find_bias(0.0, draws + 0.05) == 0
    assert find_bias(0.0, draws - 0.05) == 0
    for shift in (0.15, -0.15):
        assert find_bias(0.0, draws + shift) == pytest.approx(shift)


def test_the_interval_of_a_calibration_error_holds_it_although_every_draw_raises_it():
    generator = np.random.default_rng(0)
    sure = generator.uniform(0.5, 1, 400)
    error = calibration_error(sure, generator.random(400) < sure)
    draws = bootstrap({"ece": error}, 400, seed=0)["ece"]
    raw, figure = (estimate({"ece": error}, 400, 0, names)["ece"] for names in ((), ("ece",)))
    assert draws.mean() > figure.value == raw.value
    assert figure.low < figure.value < figure.high
    raised = draws.mean() - figure.value
    assert (figure.low, figure.high) == pytest.approx((raw.low - raised, raw.high - raised))


def test_an_error_is_never_below_zero():
    sure = np.full(400, 0.5)
    perfect = calibration_error(sure, np.arange(400) % 2 == 0)  # each bin right about half the time
    figure = estimate({"ece": perfect}, 400, 0, ("ece",))["ece"]
    assert 0 <= figure.low <= figure.value <= figure.high


def test_the_lowest_gaps_are_the_low_ends_of_every_paired_difference():
    generator = np.random.default_rng(0)
    statistics = [mean_of(generator.random(80) < share) for share in (0.5, 0.6, 0.9)]
    found = lowest_gaps(statistics, 80, seed=3)
    for one in range(3):
        for other in range(3):
            gap = difference(statistics[one], statistics[other])
            expected = estimate({"gap": gap}, 80, seed=3)["gap"].low
            assert found[one, other] == pytest.approx(expected, abs=1e-9)
    assert found[2, 0] > 0 > found[0, 2]


def test_memory_does_not_grow_with_the_draws(monkeypatch):
    rows, peaks = 25_000, []
    assert 200 * rows > intervals.KEPT_WEIGHTS
    for draws in (200, 1000):
        monkeypatch.setattr(intervals, "DRAWS", draws)
        tracemalloc.start()
        found = bootstrap({"mean": mean_of(np.ones(rows))}, rows, seed=0)["mean"]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found) == draws
    assert peaks[1] < 1.1 * peaks[0]


def test_draws_that_are_kept_are_those_that_would_be_drawn(monkeypatch):
    values = {"mean": mean_of(np.random.default_rng(0).normal(size=300))}
    first, kept = (bootstrap(values, 300, seed=1)["mean"] for _ in range(2))
    monkeypatch.setattr(intervals, "KEPT_WEIGHTS", 0)
    drawn = bootstrap(values, 300, seed=1)["mean"]
    assert first.tolist() == kept.tolist() == drawn.tolist()


def test_a_figure_shows_its_interval():
    assert str(Figure(0.95, 0.9312345, 1, 200)) == "0.9500 [0.9312, 1.0000]"


@pytest.mark.parametrize(
    ("hits", "rows"), [((56, 48), (70, 80)), ((9, 3), (10, 10)), ((7, 0), (7, 9))]
)
def test_the_difference_of_two_shares_is_newcombes_of_statsmodels(hits, rows):
    shares = [hit / row for hit, row in zip(hits, rows, strict=True)]
    figures = [Figure(value, 0, 1, row) for value, row in zip(shares, rows, strict=True)]
    found = subtract_shares(*figures)
    theirs = confint_proportions_2indep(
        hits[0], rows[0], hits[1], rows[1], method="newcomb", compare="diff", alpha=1 - LEVEL
    )
    assert (found.low, found.high) == pytest.approx(theirs)
    assert (found.value, found.rows) == (pytest.approx(shares[0] - shares[1]), min(rows))


@given(st.integers(1, 500).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_the_exact_interval_of_a_share_is_that_of_statsmodels(counts):
    found = exact_share(*counts)
    assert (found.low, found.high) == pytest.approx(proportion_confint(*counts, method="beta"))
    assert found.low <= found.value <= found.high
