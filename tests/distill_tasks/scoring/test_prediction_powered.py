import numpy as np
import pytest

from distill_tasks.scoring.intervals import bootstrap, find_interval, lowest_gaps, plain_value
from distill_tasks.scoring.prediction_powered import ByTeacher, collect_evidence
from distill_tasks.scoring.statistics import mean


def draw(rows, rate, follows, generator):
    """Hits of two models on gold, and whether they agree with a teacher that follows gold."""
    gold = np.stack([generator.random(rows) < share for share in rate], axis=1)
    noise = generator.random((rows, 1)) < follows
    return gold, np.where(noise, gold, ~gold)


def collect(gold, on_gold, further, seed=1):
    by_teacher = ByTeacher(
        [mean(hits) for hits in on_gold.T], [mean(hits) for hits in further.T], len(further)
    )
    return collect_evidence([mean(hits) for hits in gold.T], len(gold), by_teacher, seed)


def test_gold_alone_gives_the_usual_figures():
    gold, _ = draw(80, (0.9, 0.7), 1.0, np.random.default_rng(0))
    statistics = [mean(hits) for hits in gold.T]
    evidence = collect_evidence(statistics, 80, seed=4)
    drawn = bootstrap({"0": statistics[0], "1": statistics[1]}, 80, 4)
    triples = zip(evidence.qualities, statistics, drawn.values(), strict=True)
    for figure, statistic, draws in triples:
        assert figure.value == plain_value(statistic, 80)
        assert (figure.low, figure.high) == find_interval(draws)
    assert np.array_equal(evidence.low_gaps, lowest_gaps(statistics, 80, 4))


def test_it_is_the_estimator_of_the_paper():
    """Angelopoulos, Duchi, Zrnic 2023, equations 2 and 8, on plain means."""
    generator = np.random.default_rng(5)
    gold, on_gold = draw(300, (0.8,), 0.9, generator)
    _, further = draw(2000, (0.8,), 0.9, generator)
    y, f, g = gold[:, 0].astype(float), on_gold[:, 0].astype(float), further[:, 0].astype(float)
    every = np.concatenate([f, g])
    weight = np.cov(y, f)[0, 1] / ((1 + len(f) / len(g)) * every.var())
    expected = y.mean() + weight * (g.mean() - f.mean())
    error = np.sqrt((y - weight * f).var() / len(f) + weight**2 * g.var() / len(g))
    (found,) = collect(gold, on_gold, further).qualities
    assert found.value == pytest.approx(expected, abs=0.002)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.1)


def test_many_rows_of_a_teacher_that_follows_gold_make_it_surer():
    generator = np.random.default_rng(2)
    gold, on_gold = draw(150, (0.85, 0.75), 0.95, generator)
    _, further = draw(1500, (0.85, 0.75), 0.95, generator)
    surer, alone = collect(gold, on_gold, further), collect_evidence([mean(h) for h in gold.T], 150)
    for ours, theirs in zip(surer.qualities, alone.qualities, strict=True):
        assert ours.high - ours.low < 0.8 * (theirs.high - theirs.low)
    assert surer.low_gaps[0, 1] > alone.low_gaps[0, 1]


def test_a_teacher_that_tells_nothing_changes_nothing():
    generator = np.random.default_rng(3)
    gold, on_gold = draw(150, (0.85, 0.75), 0.5, generator)
    _, further = draw(1500, (0.85, 0.75), 0.5, generator)
    surer, alone = (
        collect(gold, on_gold, further),
        collect_evidence([mean(h) for h in gold.T], 150, seed=1),
    )
    for ours, theirs in zip(surer.qualities, alone.qualities, strict=True):
        assert ours.value == pytest.approx(theirs.value, abs=0.01)
        assert ours.high - ours.low <= theirs.high - theirs.low
    again = collect(gold, np.ones_like(gold), np.ones_like(on_gold))
    assert [figure.value for figure in again.qualities] == [f.value for f in alone.qualities]


def test_it_is_never_wider_than_gold_alone_and_unbiased_whatever_the_teacher():
    values = {follows: [] for follows in (0.5, 0.7, 0.97)}
    for follows, found in values.items():
        for number in range(60):
            generator = np.random.default_rng(number)
            gold, on_gold = draw(100, (0.8, 0.7), follows, generator)
            _, further = draw(800, (0.8, 0.7), follows, generator)
            evidence = collect(gold, on_gold, further, seed=number)
            alone = collect_evidence([mean(h) for h in gold.T], 100, seed=number)
            for ours, theirs in zip(evidence.qualities, alone.qualities, strict=True):
                assert ours.high - ours.low <= theirs.high - theirs.low
            found.append(evidence.qualities[0].value - 0.8)
    for found in values.values():
        assert abs(np.mean(found)) < 3.5 * np.std(found) / np.sqrt(len(found))
