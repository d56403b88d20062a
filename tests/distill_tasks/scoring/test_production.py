import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.production import HISTOGRAM_BINS, check_production, familiarity
from distill_tasks.scoring.scorecard import EvalSplit, Predictions

PROBLEMS = ("single_label", "multi_label")
matrices = arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32))


def make_eval_split(problem, rows, seed, scale=6.0, noise=4.0, calibration=None):
    """Return rows without gold, and a student that follows its teacher but for some noise."""
    generator = np.random.default_rng(seed)
    strength = np.eye(3)[generator.integers(3, size=rows)] * 2 - 1
    teacher = (scale * strength + generator.normal(size=(rows, 3)) * scale / 3).astype(np.float32)
    student = (teacher + generator.normal(0, noise, size=(rows, 3))).astype(np.float32)
    shape = rows if problem == "single_label" else (rows, 3)
    split = Split(("text",) * rows, np.full(shape, NO_LABEL))
    predictions = Predictions(teacher, Calibration())
    eval_split = EvalSplit("production", split, predictions, ("a", "b", "c"), problem, "accuracy")
    return eval_split, Predictions(student, calibration or Calibration())


@given(matrices)
@settings(deadline=None, max_examples=40)
def test_familiarity_is_the_negative_energy_of_torch(logits):
    wide = torch.from_numpy(logits).double()
    np.testing.assert_allclose(familiarity(logits, "single_label"), wide.logsumexp(1), atol=1e-12)
    joint = torch.logaddexp(wide, torch.zeros_like(wide)).sum(1)
    np.testing.assert_allclose(familiarity(logits, "multi_label"), joint, atol=1e-12)


def test_strong_logits_are_familiar_and_flat_ones_are_not():
    logits = np.float32([[9, -9, -9], [0.1, 0, -0.1]])
    for problem in PROBLEMS:
        strong, flat = familiarity(logits, problem)
        assert strong > 3 * flat


@pytest.mark.parametrize("problem", PROBLEMS)
def test_production_that_is_like_held_out_raises_no_flag(problem):
    held_out, production = (
        make_eval_split(problem, 2000, seed=0),
        make_eval_split(problem, 3000, seed=1),
    )
    check = check_production(*held_out, *production)
    assert not check.is_worse
    assert not check.is_foreign
    assert check.out_of_distribution.value == pytest.approx(0.05, abs=0.015)
    assert (check.agreement.rows, check.held_out_agreement.rows) == (3000, 2000)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_held_out_itself_has_five_unusual_rows_in_a_hundred(problem):
    held_out = make_eval_split(problem, 1000, seed=0)
    check = check_production(*held_out, *held_out)
    assert check.out_of_distribution.value == pytest.approx(0.05, abs=1e-6)
    assert check.agreement == check.held_out_agreement
    assert check.confidence == check.held_out_confidence


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_student_that_leaves_its_teacher_on_production_is_worse_there(problem):
    held_out = make_eval_split(problem, 1000, seed=0)
    production = make_eval_split(problem, 1000, seed=1, noise=8)
    check = check_production(*held_out, *production)
    assert check.is_worse
    eval_split, student = production
    agreed = (
        (eval_split.decide(student) == eval_split.decide(eval_split.teacher)).all(axis=1).mean()
    )
    assert check.agreement.value == pytest.approx(agreed)
    assert not check_production(*production, *held_out).is_worse


@pytest.mark.parametrize("problem", PROBLEMS)
def test_texts_that_leave_the_student_cold_are_foreign(problem):
    held_out = make_eval_split(problem, 1000, seed=0, scale=12, noise=1)
    cold = make_eval_split(problem, 1000, seed=1, scale=0.1, noise=0.01)
    check = check_production(*held_out, *cold)
    assert check.is_foreign
    assert check.out_of_distribution.value > 0.5
    assert not check.is_worse  # it still agrees


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_histograms_hold_every_row_by_its_calibrated_confidence(problem):
    calibration = Calibration(temperature=3.0)
    held_out = make_eval_split(problem, 400, seed=0, scale=30, calibration=calibration)
    production = make_eval_split(problem, 300, seed=1, calibration=calibration)
    check = check_production(*held_out, *production)
    assert check.confidence_edges == pytest.approx(np.arange(HISTOGRAM_BINS + 1) / HISTOGRAM_BINS)
    for shares, (_, student) in (
        (check.confidence, production),
        (check.held_out_confidence, held_out),
    ):
        assert sum(shares) == pytest.approx(1)
        sure = calibration.confidence(student.logits, problem)
        assert shares[-1] == pytest.approx((sure >= 0.95).mean())
        assert shares[10] == pytest.approx(((sure >= 0.5) & (sure < 0.55)).mean())


def test_a_few_rows_of_production_prove_nothing():
    held_out = make_eval_split("single_label", 1000, seed=0)
    few, student = make_eval_split("single_label", 3, seed=1, noise=0)
    turned = np.vstack([-student.logits[:1], student.logits[1:]])
    check = check_production(*held_out, few, Predictions(turned, Calibration()))
    assert check.agreement.value == pytest.approx(2 / 3)
    assert check.agreement.value < check.held_out_agreement.low
    assert not check.is_worse


def test_nothing_is_unusual_to_a_student_that_answers_everything_alike():
    eval_split, _ = make_eval_split("single_label", 100, seed=0)
    constant = Predictions(np.tile(np.float32([[1, 0, 0]]), (100, 1)), Calibration())
    assert (
        check_production(eval_split, constant, eval_split, constant).out_of_distribution.value == 0
    )
