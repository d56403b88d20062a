import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, precision_recall_curve
from torch.nn import functional

from distill_tasks.problems.classification import decide, probabilities, to_decisions
from distill_tasks.scoring.calibration import (
    NEVER,
    TEMPERATURES,
    Calibration,
    calibrate,
    fit_answer_from,
    fit_temperature,
    fit_thresholds,
)
from distill_tasks.scoring.statistics import negative_log_likelihood

PROBLEMS = ("single_label", "multi_label")
shares = st.integers(0, 20).map(lambda number: number / 20)  # ties among them
scored = st.integers(1, 30).flatmap(
    lambda rows: st.tuples(arrays(np.float64, rows, elements=shares), arrays(bool, rows))
)


def draw_gold(problem, logits, seed=0):
    """Return gold that comes true as often as the logits say."""
    generator = np.random.default_rng(seed)
    if problem == "multi_label":
        return generator.random(logits.shape) < probabilities(logits, problem)
    noisy = logits + generator.gumbel(size=logits.shape)
    return to_decisions(noisy.argmax(axis=1), logits.shape[1])


@pytest.fixture(scope="module", params=PROBLEMS)
def rows(request):
    """A problem, logits that say how likely gold is, and that gold."""
    logits = np.random.default_rng(1).normal(0, 2, size=(4000, 3)).astype(np.float32)
    return request.param, logits, draw_gold(request.param, logits)


@pytest.mark.parametrize("sharpened", [0.25, 1.0, 3.0])
def test_the_temperature_undoes_what_sharpened_the_logits(rows, sharpened):
    problem, logits, gold = rows
    found = fit_temperature(logits * sharpened, gold, problem)
    assert found == pytest.approx(sharpened, rel=0.1)


def test_no_other_temperature_has_a_lower_likelihood_by_torch(rows):
    problem, logits, gold = rows
    few, truth = torch.from_numpy(logits[:300]).double(), torch.from_numpy(gold[:300])
    loss, target = (
        (functional.cross_entropy, truth.int().argmax(dim=1))
        if problem == "single_label"
        else (functional.binary_cross_entropy_with_logits, truth.double())
    )
    found = fit_temperature(logits[:300], gold[:300], problem)
    least = loss(few / found, target)
    for temperature in np.geomspace(*TEMPERATURES, 400):
        assert least <= loss(few / temperature, target) + 1e-9


def test_the_temperature_stays_within_its_bounds_where_every_answer_is_right_or_none():
    logits = np.float32([[5, 0], [0, 5]])
    sure = fit_temperature(logits, logits > 0, "single_label")
    doubtful = fit_temperature(logits, logits == 0, "single_label")
    assert TEMPERATURES[0] <= sure < 0.2
    assert 15 < doubtful <= TEMPERATURES[1]


@given(scored)
@settings(deadline=None, max_examples=80)
def test_a_threshold_gives_the_best_f1_that_any_threshold_gives(drawn):
    values, gold = drawn
    found = fit_thresholds(values[:, None], gold[:, None])[0]
    if not gold.any():
        assert found == 0.5
        return
    precision, recall, _ = precision_recall_curve(gold, values)
    best = max(2 * p * r / (p + r) if p + r else 0 for p, r in zip(precision, recall, strict=True))
    assert f1_score(gold, values >= found) == pytest.approx(best)
    assert found not in values[values > 0]  # rounding of a probability must not flip it


def test_each_class_has_its_own_threshold():
    values = np.array([[0.9, 0.3, 0.4], [0.8, 0.2, 0.2], [0.1, 0.1, 0.1]])
    gold = np.array([[True, True, False], [False, True, False], [False, False, False]])
    assert fit_thresholds(values, gold) == pytest.approx([0.85, 0.15, 0.5])


@given(scored, shares)
@settings(deadline=None, max_examples=80)
def test_answers_are_right_as_often_as_asked_and_no_lower_confidence_would_do(drawn, precision):
    sure, right = drawn
    found = fit_answer_from(sure, right, precision)
    good = [limit for limit in sure if right[sure >= limit].mean() >= precision]
    expected = sure >= min(good) if good else np.zeros(len(sure), bool)
    assert (sure >= found).tolist() == expected.tolist()
    assert (found == NEVER) == (not good)


def test_without_gold_nothing_is_fitted():
    for problem in PROBLEMS:
        assert calibrate(np.float32([[1, 2]]), None, problem, 0.9) == Calibration()


def test_what_is_fitted_is_what_the_problem_asks_for(rows):
    problem, logits, gold = rows
    fitted = calibrate(logits, gold, problem, precision=None)
    assert fitted.temperature == fit_temperature(logits, gold, problem)
    assert fitted.answer_from is None
    assert (fitted.thresholds is None) == (problem == "single_label")
    asked = calibrate(logits, gold, problem, precision=0.9)
    assert (asked.temperature, asked.thresholds) == (fitted.temperature, fitted.thresholds)
    predictions = asked.confidence(logits, problem) >= asked.answer_from
    right = (asked.decide(logits, problem) == gold).all(axis=1)
    assert 0 < predictions.mean() < 1
    assert right[predictions].mean() >= 0.9 > right.mean()


def test_calibration_never_worsens_the_likelihood_of_the_rows_it_was_fitted_on(rows):
    problem, logits, gold = rows
    sharp = 4 * logits
    fitted = calibrate(sharp, gold, problem, None).temperature
    before, after = (
        negative_log_likelihood(sharp, gold, problem, temperature).mean()
        for temperature in (1.0, fitted)
    )
    assert after < before


def test_the_temperature_changes_how_sure_an_answer_is_but_not_the_answer(rows):
    problem, logits, _ = rows
    cool, warm = Calibration(0.5), Calibration(5.0)
    plain = decide(logits, problem)
    assert (cool.decide(logits, problem) == plain).all()
    assert (warm.decide(logits, problem) == plain).all()
    gap = cool.confidence(logits, problem) - warm.confidence(logits, problem)
    assert (gap > -1e-9).all()
    assert gap.max() > 0.1


def test_thresholds_are_of_the_probabilities_after_the_temperature():
    logits = np.float32([[2, 2]])  # sigmoid(1) = .731 at temperature two
    said = Calibration(2.0, [0.73, 0.74]).decide(logits, "multi_label")
    assert said.tolist() == [[True, False]]


def test_a_calibration_comes_back_from_json():
    for calibration in (Calibration(), Calibration(1.5, [0.25, 0.5], 0.75)):
        assert Calibration(**json.loads(json.dumps(calibration.to_json()))) == calibration
