from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from distill_tasks.corpus import NO_LABEL, Split
from distill_tasks.errors import DivergedError
from distill_tasks.losses import (
    check_finite,
    distillation_loss,
    gold_loss,
    soft_divergence,
    soft_divergence_per_label,
)
from distill_tasks.soft_labels import SoftLabels
from distill_tasks.students.bag_of_words import loss_and_slope
from distill_tasks.students.lesson import Lesson

number = st.floats(-20, 20)
pairs = st.tuples(st.integers(1, 5), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(*[arrays(np.float64, shape, elements=number)] * 2)
)
temperatures = st.sampled_from([0.5, 1.0, 2.0, 10.0])
tenths = st.integers(0, 10).map(lambda count: count / 10)
divergences = st.sampled_from([soft_divergence, soft_divergence_per_label])


def test_the_divergence_is_the_one_by_hand():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[log(3), 0.0]])
    by_hand = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    assert soft_divergence(student, teacher, 1).item() == pytest.approx(by_hand, rel=1e-5)
    # Logits twice as large at T = 2 are the same distributions, and T² makes it four times as much.
    at_two = soft_divergence(2 * student, 2 * teacher, 2).item()
    assert at_two == pytest.approx(4 * by_hand, rel=1e-5)


def test_the_divergence_is_of_the_teacher_from_the_student():
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    p = torch.softmax(sure, -1)[0]
    expected = sum(p * torch.log(p / 0.5)).item()
    assert soft_divergence(unsure, sure, 1).item() == pytest.approx(expected, rel=1e-5)
    assert soft_divergence(sure, unsure, 1).item() > 1.5 * expected


@given(pairs, temperatures, divergences)
@settings(deadline=None, max_examples=50)
def test_the_divergence_is_never_negative_and_zero_at_equality(pair, temperature, divergence):
    student, teacher = map(torch.from_numpy, pair)
    assert (divergence(student, teacher, temperature) > -1e-9).all()
    assert divergence(teacher, teacher, temperature).abs().max() < 1e-9


@given(pairs, temperatures)
@settings(deadline=None, max_examples=50)
def test_the_divergence_is_that_of_torch(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    said, told = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    theirs = functional.kl_div(said, told, reduction="none", log_target=True).sum(-1)
    found = soft_divergence(student, teacher, temperature)
    torch.testing.assert_close(found, theirs * temperature**2)


@given(pairs, temperatures)
@settings(deadline=None, max_examples=50)
def test_the_divergence_of_each_label_is_that_of_two_classes(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    both = [torch.stack([x, torch.zeros_like(x)], -1).flatten(0, 1) for x in (student, teacher)]
    expected = soft_divergence(*both, temperature).reshape(student.shape).mean(-1)
    found = soft_divergence_per_label(student, teacher, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_divergence_of_certain_answers_is_finite():
    sure = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    for divergence in (soft_divergence, soft_divergence_per_label):
        loss = divergence(sure, -sure.detach(), 1).sum()
        loss.backward()
        assert loss.isfinite()
        assert loss > 900
    assert sure.grad.isfinite().all()


@given(pairs, temperatures, number)
@settings(deadline=None, max_examples=50)
def test_adding_a_constant_to_a_row_changes_nothing(pair, temperature, constant):
    student, teacher = map(torch.from_numpy, pair)
    shift = constant * torch.arange(len(student))[:, None]
    torch.testing.assert_close(
        soft_divergence(student + shift, teacher - shift, temperature),
        soft_divergence(student, teacher, temperature),
        rtol=1e-6,
        atol=1e-8,
    )


@given(pairs, temperatures)
@settings(deadline=None, max_examples=50)
def test_the_gradient_is_the_one_of_the_paper(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    student.requires_grad_()
    soft_divergence(student, teacher, temperature).sum().backward()
    said, told = torch.softmax(student / temperature, -1), torch.softmax(teacher / temperature, -1)
    torch.testing.assert_close(student.grad, temperature * (said - told), rtol=1e-6, atol=1e-8)


@given(pairs, temperatures)
@settings(deadline=None, max_examples=50)
def test_the_gradient_of_several_labels_is_that_of_each_one(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    student.requires_grad_()
    soft_divergence_per_label(student, teacher, temperature).sum().backward()
    gap = (student / temperature).sigmoid() - (teacher / temperature).sigmoid()
    expected = temperature * gap / student.shape[1]
    torch.testing.assert_close(student.grad, expected.detach(), rtol=1e-6, atol=1e-8)


STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0], [0.0, 3.0, 0.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 4.0], [1.0, 1.0, 1.0]])
GOLD = {
    "single_label": torch.tensor([0, 2, 1]),
    "multi_label": torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0]]),
}
DIVERGENCE = {"single_label": soft_divergence, "multi_label": soft_divergence_per_label}
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
problems = pytest.mark.parametrize("problem", list(GOLD))


def cross_entropy(problem, rows=slice(None), weights=None):
    """Return the mean loss of gold as torch reckons it from probabilities."""
    student, gold = STUDENT[rows], GOLD[problem][rows]
    weights = torch.ones(3) if weights is None else weights
    if problem == "single_label":
        said = student.softmax(-1)[range(len(gold)), gold]
        return -(weights[gold] * said.log()).mean()
    said = student.sigmoid()
    return -(weights * gold * said.log() + (1 - gold) * (1 - said).log()).mean()


@problems
def test_the_loss_of_gold_is_the_cross_entropy_with_classes_weighed(problem):
    for weights in (None, WEIGHTS):
        found = gold_loss(STUDENT, GOLD[problem], weights)
        assert found.shape == (3,)
        torch.testing.assert_close(found.mean(), cross_entropy(problem, weights=weights))


@problems
def test_alpha_weighs_the_teacher_and_the_rest_goes_to_gold(problem):
    soft = DIVERGENCE[problem](STUDENT, TEACHER, 2).mean()
    for alpha in (0.0, 0.3, 1.0):
        for weights in (None, WEIGHTS):
            loss = distillation_loss(STUDENT, TEACHER, GOLD[problem], 2, alpha, weights)
            hard = cross_entropy(problem, weights=weights)
            torch.testing.assert_close(loss, alpha * soft + (1 - alpha) * hard)


@problems
def test_rows_without_gold_learn_from_the_teacher_alone(problem):
    gold = GOLD[problem].clone()
    gold[1:] = NO_LABEL
    soft = DIVERGENCE[problem](STUDENT, TEACHER, 2)
    for weights in (None, WEIGHTS):
        assert gold_loss(STUDENT, gold, weights)[1:].tolist() == [0, 0]
        hard = cross_entropy(problem, slice(1), weights)
        expected = (0.3 * soft[0] + 0.7 * hard + soft[1] + soft[2]) / 3
        loss = distillation_loss(STUDENT, TEACHER, gold, 2, 0.3, weights)
        torch.testing.assert_close(loss, expected)


@problems
def test_without_any_gold_neither_alpha_nor_weights_matter(problem):
    gold = torch.full_like(GOLD[problem], NO_LABEL)
    for alpha in (0.0, 0.5, 1.0):
        loss = distillation_loss(STUDENT, TEACHER, gold, 2, alpha, WEIGHTS)
        torch.testing.assert_close(loss, DIVERGENCE[problem](STUDENT, TEACHER, 2).mean())


@given(pairs, temperatures, tenths, st.sampled_from(list(GOLD)), st.booleans(), st.data())
@settings(deadline=None, max_examples=100)
def test_torch_and_numpy_agree_on_loss_and_slope(pair, temperature, alpha, problem, weighed, data):
    logits, told = pair[0], pair[1].astype(np.float32)
    rows, count = logits.shape
    if problem == "single_label":
        gold = data.draw(arrays(np.int64, rows, elements=st.integers(-1, count - 1)))
    else:
        gold = data.draw(arrays(np.int64, (rows, count), elements=st.integers(0, 1)))
        gold[data.draw(arrays(bool, rows))] = NO_LABEL
    weights = np.linspace(0.25, 4, count, dtype=np.float32) if weighed else None
    classes = tuple("abcdef"[:count])
    split = Split(("row",) * rows, gold)
    lesson = Lesson(
        rows=split,
        soft_labels=SoftLabels(told, classes, "t1"),
        validation=split,
        classes=classes,
        temperature=temperature,
        alpha=alpha,
        seed=0,
        teacher=None,
        problem=problem,
        class_weights=weights,
    )
    student = torch.from_numpy(logits).requires_grad_()
    loss = distillation_loss(
        student,
        torch.from_numpy(told).double(),
        torch.from_numpy(gold),
        temperature,
        alpha,
        None if weights is None else torch.from_numpy(weights).double(),
    )
    loss.backward()
    found, slope = loss_and_slope(logits, lesson)
    assert found == pytest.approx(loss.item(), rel=1e-5, abs=1e-7)
    np.testing.assert_allclose(slope, student.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_loss_names_its_step_and_learning_rate(broken):
    with pytest.raises(DivergedError, match=r"in step 3 at learning_rate 0\.01\. Lower it\."):
        check_finite(torch.tensor(broken), 3, 0.01)
    check_finite(torch.tensor(1e30), 3, 0.01)
