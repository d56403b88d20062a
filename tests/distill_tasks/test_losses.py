from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from distill_tasks.corpus import NO_LABEL, Split
from distill_tasks.losses import distillation_loss, soft_divergence
from distill_tasks.soft_labels import SoftLabels
from distill_tasks.students.bag_of_words import loss_and_slope
from distill_tasks.students.lesson import Lesson

number = st.floats(-20, 20)
pairs = st.tuples(st.integers(1, 5), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(*[arrays(np.float64, shape, elements=number)] * 2)
)
temperatures = st.sampled_from([0.5, 1.0, 2.0, 10.0])


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


@given(pairs, temperatures)
@settings(deadline=None, max_examples=50)
def test_the_divergence_is_never_negative_and_zero_at_equality(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    assert (soft_divergence(student, teacher, temperature) > -1e-9).all()
    assert soft_divergence(teacher, teacher, temperature).abs().max() < 1e-9


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


STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0], [0.0, 3.0, 0.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 4.0], [1.0, 1.0, 1.0]])


def test_alpha_weighs_the_teacher_and_the_rest_goes_to_gold():
    gold = torch.tensor([0, 2, 1])
    soft = soft_divergence(STUDENT, TEACHER, 2).mean()
    hard = functional.cross_entropy(STUDENT, gold)
    for alpha in (0.0, 0.3, 1.0):
        loss = distillation_loss(STUDENT, TEACHER, gold, 2, alpha)
        torch.testing.assert_close(loss, alpha * soft + (1 - alpha) * hard)


def test_rows_without_gold_learn_from_the_teacher_alone():
    gold = torch.tensor([0, NO_LABEL, NO_LABEL])
    soft = soft_divergence(STUDENT, TEACHER, 2)
    hard = functional.cross_entropy(STUDENT[:1], gold[:1])
    expected = (0.3 * soft[0] + 0.7 * hard + soft[1] + soft[2]) / 3
    torch.testing.assert_close(distillation_loss(STUDENT, TEACHER, gold, 2, 0.3), expected)


def test_without_any_gold_alpha_does_not_matter():
    gold = torch.full((3,), NO_LABEL)
    for alpha in (0.0, 0.5, 1.0):
        loss = distillation_loss(STUDENT, TEACHER, gold, 2, alpha)
        torch.testing.assert_close(loss, soft_divergence(STUDENT, TEACHER, 2).mean())


@given(pairs, temperatures, st.floats(0, 1), st.data())
@settings(deadline=None, max_examples=50)
def test_torch_and_numpy_agree_on_loss_and_slope(pair, temperature, alpha, data):
    logits, told = pair[0], pair[1].astype(np.float32)
    gold = data.draw(arrays(np.int64, len(logits), elements=st.integers(-1, logits.shape[1] - 1)))
    classes = tuple("abcdef"[: logits.shape[1]])
    rows = Split(("row",) * len(logits), gold)
    labels = SoftLabels(told, classes, "t1")
    lesson = Lesson(rows, labels, rows, classes, temperature, alpha, seed=0, teacher=None)
    student = torch.from_numpy(logits).requires_grad_()
    teacher = torch.from_numpy(told).double()
    loss = distillation_loss(student, teacher, torch.from_numpy(gold), temperature, alpha)
    loss.backward()
    found, slope = loss_and_slope(logits, lesson)
    assert found == pytest.approx(loss.item(), rel=1e-5, abs=1e-7)
    np.testing.assert_allclose(slope, student.grad, rtol=1e-5, atol=1e-7)
