import numpy as np
import pytest
from scipy import stats

from distill_tasks.intervals import DRAWS, LEVEL, Figure, draw_weights, estimate


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


def test_a_figure_shows_its_interval():
    assert str(Figure(0.95, 0.9312345, 1, 200)) == "0.9500 [0.9312, 1.0000]"
