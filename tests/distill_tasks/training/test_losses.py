from functools import partial
from math import log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats
from torch.nn import functional

from distill_tasks.core.errors import DivergedError
from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.students.bag_of_words import loss_and_slope
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.losses import (
    SHORTEST,
    check_finite,
    decoupled_divergence,
    dist_divergence,
    distillation_loss,
    gold_loss,
    hidden_distance,
    hidden_mse,
    jensen_shannon,
    mean_over_labels,
    relation_divergence,
    reverse_divergence,
    soft_divergence,
    standardize_logits,
)
from distill_tasks.training.objective import Objective

number = st.floats(-20, 20)
pairs = st.tuples(st.integers(1, 5), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(*[arrays(np.float64, shape, elements=number)] * 2)
)
temperatures = st.sampled_from([0.5, 1.0, 2.0, 10.0])
tenths = st.integers(0, 10).map(lambda count: count / 10)
seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=50)


def decoupled(student, teacher, temperature):
    """Call `decoupled_divergence` with every class as gold in turn, and none after the last."""
    labels = torch.arange(len(student)) % (student.shape[1] + 1)
    labels[labels == student.shape[1]] = NO_LABEL
    return decoupled_divergence(student, teacher, temperature, labels)


OF_ROWS = {
    "kl": soft_divergence,
    "reverse_kl": reverse_divergence,
    "js": jensen_shannon,
    "dkd": decoupled,
    "dist": dist_divergence,
}
OF_LABELS = {
    f"{term} of labels": partial(mean_over_labels, OF_ROWS[term])
    for term in ("kl", "reverse_kl", "js")
}
LOSSES = {**OF_ROWS, **OF_LABELS}
row_losses = pytest.mark.parametrize("loss", OF_ROWS.values(), ids=OF_ROWS)
all_losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def logits_of(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def draw(seed, *shape):
    """Return standard normal numbers: no two of them alike, as ties of float draws would be."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


# Known values


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


def test_the_reverse_divergence_is_of_the_student_from_the_teacher():
    student, teacher = logits_of([0.75, 0.25]), logits_of([0.5, 0.5])
    by_hand = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    assert reverse_divergence(student, teacher, 1).item() == pytest.approx(by_hand)
    assert reverse_divergence(3 * student, 3 * teacher, 3).item() == pytest.approx(9 * by_hand)


def test_jensen_shannon_is_that_by_hand_and_log_two_where_nothing_is_shared():
    student, teacher = logits_of([0.75, 0.25]), logits_of([0.25, 0.75])
    by_hand = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    assert jensen_shannon(student, teacher, 1).item() == pytest.approx(by_hand)
    sure = torch.tensor([[1000.0, -1000.0]])
    assert jensen_shannon(sure, -sure, 2).item() == pytest.approx(4 * log(2))


@pytest.mark.parametrize("gold", [0, NO_LABEL])
def test_the_decoupled_parts_are_those_by_hand(gold):
    labels = torch.tensor([gold])
    teacher, student = logits_of([0.5, 0.3, 0.2]), logits_of([0.5, 0.2, 0.3])
    among_others = 0.6 * log(0.6 / 0.4) + 0.4 * log(0.4 / 0.6)
    found = decoupled_divergence(student, teacher, 1, labels)
    assert found.item() == pytest.approx(8 * among_others)
    teacher, student = logits_of([0.6, 0.2, 0.2]), logits_of([0.2, 0.4, 0.4])
    of_target = 0.6 * log(0.6 / 0.2) + 0.4 * log(0.4 / 0.8)
    found = decoupled_divergence(2 * student, 2 * teacher, 2, labels)
    assert found.item() == pytest.approx(4 * of_target)


def test_the_decoupled_target_is_gold_where_the_teacher_is_wrong():
    teacher, student = logits_of([0.6, 0.3, 0.1]), logits_of([0.3, 0.6, 0.1])
    of_target = 0.1 * log(0.1 / 0.1) + 0.9 * log(0.9 / 0.9)
    among_others = 2 / 3 * log(2) + 1 / 3 * log(1 / 2)
    found = decoupled_divergence(student, teacher, 1, torch.tensor([2]))
    assert found.item() == pytest.approx(of_target + 8 * among_others)


def test_opposite_rows_are_two_apart_in_dist():
    teacher, student = logits_of([1 / 2, 1 / 3, 1 / 6]), logits_of([1 / 6, 1 / 3, 1 / 2])
    # One row has no relation between rows, so this is inter alone: 1 − (−1).
    assert dist_divergence(student, teacher, 1).item() == pytest.approx(2)
    assert dist_divergence(3 * student, 3 * teacher, 3).item() == pytest.approx(18)


def test_every_row_of_dist_carries_what_its_classes_do_over_the_rows():
    teacher = logits_of([0.5, 0.3, 0.2], [0.6, 0.3, 0.1])
    # The student ranks the classes of each row alike, but tells the two rows the other way round.
    found = dist_divergence(teacher.flip(0), teacher, 1)
    correlation = np.corrcoef([0.5, 0.3, 0.2], [0.6, 0.3, 0.1])[0, 1]
    # The middle class is constant over the rows; the other two are opposite.
    np.testing.assert_allclose(found, 1 - correlation + (2 + 0 + 2) / 3)


def test_what_does_not_vary_is_half_apart_from_what_does():
    even, uneven = torch.zeros(1, 4), torch.tensor([[3.0, 1.0, 0.0, -1.0]])
    assert dist_divergence(even, uneven, 1).item() == pytest.approx(0.5)
    assert dist_divergence(uneven, even, 1).item() == pytest.approx(0.5)
    assert dist_divergence(even, even + 7, 1).item() == 0


# Properties


@all_losses
@given(pairs, temperatures)
@quick
def test_a_loss_is_never_negative_and_zero_at_equality(loss, pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    found = loss(student, teacher, temperature)
    assert found.shape == (len(student),)
    assert (found > -1e-9).all()
    assert loss(teacher, teacher, temperature).abs().max() < 1e-9


@all_losses
@given(pairs, temperatures)
@quick
def test_nothing_pulls_at_a_student_that_equals_its_teacher(loss, pair, temperature):
    teacher = torch.from_numpy(pair[1])
    student = teacher.clone().requires_grad_()
    loss(student, teacher, temperature).sum().backward()
    assert student.grad.abs().max() < 1e-9


@row_losses
@given(pairs, temperatures, number)
@quick
def test_adding_a_constant_to_a_row_changes_nothing(loss, pair, temperature, constant):
    student, teacher = map(torch.from_numpy, pair)
    shift = constant * torch.arange(len(student))[:, None]
    torch.testing.assert_close(
        loss(student + shift, teacher - shift, temperature),
        loss(student, teacher, temperature),
        rtol=1e-6,
        atol=1e-6,
    )


@given(pairs, temperatures)
@quick
def test_jensen_shannon_is_symmetric_and_at_most_log_two(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    found = jensen_shannon(student, teacher, temperature)
    torch.testing.assert_close(found, jensen_shannon(teacher, student, temperature))
    assert (found <= temperature**2 * log(2) + 1e-9).all()


@given(seeds, temperatures, st.integers(1, 5))
@quick
def test_of_two_classes_the_decoupled_divergence_is_the_divergence(seed, temperature, rows):
    student, teacher = draw(seed, 2, rows, 2)
    expected = soft_divergence(student, teacher, temperature)
    torch.testing.assert_close(decoupled(student, teacher, temperature), expected)


@given(seeds, st.floats(0.05, 1))
@quick
def test_dist_does_not_see_how_sharp_probabilities_are(seed, share):
    student, teacher = draw(seed, 2, 4, 5)
    # Mixing with even odds is a·p + b with a > 0, in each row and in each column.
    mixed = (share * student.softmax(-1) + (1 - share) / 5).log()
    expected = dist_divergence(student, teacher, 1)
    torch.testing.assert_close(dist_divergence(mixed, teacher, 1), expected)
    assert dist_divergence(mixed, student, 1).abs().max() < 1e-9


@given(pairs, temperatures)
@quick
def test_the_gradient_is_the_one_of_the_paper(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    student.requires_grad_()
    soft_divergence(student, teacher, temperature).sum().backward()
    said, told = torch.softmax(student / temperature, -1), torch.softmax(teacher / temperature, -1)
    torch.testing.assert_close(student.grad, temperature * (said - told), rtol=1e-6, atol=1e-8)


@given(pairs, temperatures)
@quick
def test_the_gradient_of_several_labels_is_that_of_each_one(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    student.requires_grad_()
    mean_over_labels(soft_divergence, student, teacher, temperature).sum().backward()
    gap = (student / temperature).sigmoid() - (teacher / temperature).sigmoid()
    expected = temperature * gap / student.shape[1]
    torch.testing.assert_close(student.grad, expected.detach(), rtol=1e-6, atol=1e-8)


# Second implementations


def softened(logits, temperature):
    return special.softmax(np.asarray(logits) / temperature, axis=-1)


@given(pairs, temperatures)
@quick
def test_both_divergences_are_those_of_torch(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    said, told = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    for found, theirs in [
        (soft_divergence, functional.kl_div(said, told, reduction="none", log_target=True)),
        (reverse_divergence, functional.kl_div(told, said, reduction="none", log_target=True)),
    ]:
        expected = theirs.sum(-1) * temperature**2
        torch.testing.assert_close(found(student, teacher, temperature), expected)


@given(pairs, temperatures)
@quick
def test_jensen_shannon_is_that_of_scipy(pair, temperature):
    said, told = (softened(x, temperature) for x in pair)
    middle = (said + told) / 2
    of_both = stats.entropy(said, middle, axis=1) + stats.entropy(told, middle, axis=1)
    found = jensen_shannon(*map(torch.from_numpy, pair), temperature)
    np.testing.assert_allclose(found, temperature**2 * of_both / 2, rtol=1e-6, atol=1e-9)


@given(pairs, temperatures)
@quick
def test_the_decoupled_divergence_is_that_of_numpy(pair, temperature):
    student, teacher = pair
    found = decoupled(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    count = student.shape[1]
    for row, loss in enumerate(found.tolist()):
        gold = row % (count + 1)
        target = gold if gold < count else teacher[row].argmax()
        p, q = softened(student[row], temperature), softened(teacher[row], temperature)
        others_p, others_q = np.delete(p, target), np.delete(q, target)
        of_target = stats.entropy([q[target], others_q.sum()], [p[target], others_p.sum()])
        # entropy() divides by the sum itself.
        expected = temperature**2 * (of_target + 8 * stats.entropy(others_q, others_p))
        assert loss == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(seeds, temperatures, st.integers(2, 6), st.integers(3, 6))
@quick
def test_dist_is_that_of_scipy(seed, temperature, rows, classes):
    logits = 2 * draw(seed, 2, rows, classes)
    said, told = softened(logits[0], temperature), softened(logits[1], temperature)
    shortest = sqrt(rows) * min(said.std(axis=0).min(), told.std(axis=0).min())
    assume(shortest > SHORTEST)
    inter = 1 - stats.pearsonr(said, told, axis=1).statistic
    if rows == 2:  # the correlation of two points is their common direction
        intra = 1 - np.sign((said[1] - said[0]) * (told[1] - told[0])).mean()
    else:
        intra = 1 - stats.pearsonr(said, told, axis=0).statistic.mean()
    found = dist_divergence(*logits, temperature)
    np.testing.assert_allclose(found, temperature**2 * (inter + intra), rtol=1e-5, atol=1e-6)


@given(pairs, temperatures)
@quick
def test_the_divergence_of_labels_is_that_of_sigmoids(pair, temperature):
    student, teacher = map(torch.from_numpy, pair)
    expected = torch.zeros_like(student)
    for sign in (1, -1):
        said = functional.logsigmoid(sign * student / temperature)
        told = functional.logsigmoid(sign * teacher / temperature)
        expected += told.exp() * (told - said)
    found = mean_over_labels(soft_divergence, student, teacher, temperature)
    torch.testing.assert_close(found, expected.mean(-1) * temperature**2, rtol=1e-6, atol=1e-9)


@given(seeds, st.floats(0.1, 100), number, st.integers(2, 6))
@quick
def test_standardized_logits_are_z_scores_whatever_their_scale(seed, scale, shift, classes):
    logits = draw(seed, 4, classes)
    found = standardize_logits(scale * logits + shift)
    np.testing.assert_allclose(found, stats.zscore(logits, axis=1), rtol=1e-5, atol=1e-7)


def test_a_standardized_row_is_the_one_by_hand():
    found = standardize_logits(torch.tensor([[5.0, 1.0, 3.0, 3.0]]))
    torch.testing.assert_close(found, torch.tensor([[sqrt(2), -sqrt(2), 0, 0]]))


@pytest.mark.parametrize("level", [0.0, 0.1, -9999.7, 3e6])
def test_equal_logits_are_standardized_to_zeros(level):
    # The mean of ten numbers near 1e4 is one rounding off, more than the shortest deviation.
    logits = torch.full((2, 10), level, requires_grad=True)
    found = standardize_logits(logits)
    (found * torch.arange(10)).sum().backward()
    assert found.count_nonzero() == 0
    assert logits.grad.isfinite().all()


# Extremes

huge = st.tuples(st.integers(1, 4), st.integers(2, 4)).flatmap(
    lambda shape: st.tuples(
        *[arrays(np.float32, shape, elements=st.sampled_from([-1e4, 1e4, 0.0, 1.0, -3.5]))] * 2
    )
)


@all_losses
@given(huge, temperatures, st.booleans())
@quick
def test_huge_logits_have_finite_losses_and_gradients(loss, pair, temperature, standardize):
    student, teacher = map(torch.from_numpy, pair)
    student.requires_grad_()
    change = standardize_logits if standardize else torch.Tensor.clone
    found = loss(change(student), change(teacher), temperature)
    found.sum().backward()
    assert found.isfinite().all()
    assert student.grad.isfinite().all()


@all_losses
def test_one_row_and_a_student_that_knows_nothing_have_finite_gradients(loss):
    for rows in (1, 3):
        student = torch.zeros(rows, 4, requires_grad=True)
        loss(student, torch.eye(4)[:rows], 2).sum().backward()
        assert student.grad.isfinite().all()
        assert student.grad.abs().max() > 0


def test_the_divergence_of_certain_answers_keeps_growing():
    sure = torch.tensor([[1000.0, -1000.0]])
    for name in ("kl", "reverse_kl", "kl of labels"):
        assert LOSSES[name](sure, -sure, 1).item() > 900


@all_losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_has_the_precision_of_its_logits(loss, dtype):
    student, teacher = draw(0, 2, 3, 4).to(dtype)
    found = loss(student, teacher, 2)
    assert found.dtype == dtype
    expected = loss(student.double(), teacher.double(), 2)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


# The whole loss

STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0], [0.0, 3.0, 0.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 4.0], [1.0, 1.0, 1.0]])
GOLD = {
    "single_label": torch.tensor([0, 2, 1]),
    "multi_label": torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0]]),
}
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
problems = pytest.mark.parametrize("problem", list(GOLD))


def divergence_of(problem, student=STUDENT, teacher=TEACHER):
    """Return the divergence of each row at T = 2."""
    if problem == "single_label":
        return soft_divergence(student, teacher, 2)
    return mean_over_labels(soft_divergence, student, teacher, 2)


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
    soft = divergence_of(problem).mean()
    for alpha in (0.0, 0.3, 1.0):
        for weights in (None, WEIGHTS):
            loss = distillation_loss(STUDENT, TEACHER, GOLD[problem], Objective(2, alpha), weights)
            hard = cross_entropy(problem, weights=weights)
            torch.testing.assert_close(loss, alpha * soft + (1 - alpha) * hard)


@problems
def test_rows_without_gold_learn_from_the_teacher_alone(problem):
    gold = GOLD[problem].clone()
    gold[1:] = NO_LABEL
    soft = divergence_of(problem)
    for weights in (None, WEIGHTS):
        assert gold_loss(STUDENT, gold, weights)[1:].tolist() == [0, 0]
        hard = cross_entropy(problem, slice(1), weights)
        expected = (0.3 * soft[0] + 0.7 * hard + soft[1] + soft[2]) / 3
        loss = distillation_loss(STUDENT, TEACHER, gold, Objective(2, 0.3), weights)
        torch.testing.assert_close(loss, expected)


@problems
def test_the_weight_of_an_answer_is_that_of_the_teacher_and_not_of_gold(problem):
    weights = torch.tensor([0.0, 0.25, 1.0])
    loss = distillation_loss(
        STUDENT, TEACHER, GOLD[problem], Objective(2, 0.3), answer_weights=weights
    )
    soft = (weights * divergence_of(problem)).mean()
    torch.testing.assert_close(loss, 0.3 * soft + 0.7 * cross_entropy(problem))


@problems
def test_without_any_gold_neither_alpha_nor_class_weights_matter(problem):
    gold = torch.full_like(GOLD[problem], NO_LABEL)
    for alpha in (0.0, 0.5, 1.0):
        loss = distillation_loss(STUDENT, TEACHER, gold, Objective(2, alpha), WEIGHTS)
        torch.testing.assert_close(loss, divergence_of(problem).mean())


def test_terms_are_added_by_their_weights_as_they_are():
    gold = GOLD["single_label"]
    terms = {"kl": 2.0, "reverse_kl": 0.5, "js": 3.0, "dkd": 0.25, "dist": 4.0}
    expected = 0
    for term, weight in terms.items():
        loss = OF_ROWS[term] if term != "dkd" else partial(decoupled_divergence, labels=gold)
        expected += weight * loss(STUDENT, TEACHER, temperature=2).mean()
    for alpha in (0.3, 1.0):
        found = distillation_loss(STUDENT, TEACHER, gold, Objective(2, alpha, terms))
        hard = cross_entropy("single_label")
        torch.testing.assert_close(found, alpha * expected + (1 - alpha) * hard)


@pytest.mark.parametrize("term", ["kl", "reverse_kl", "js"])
def test_a_term_compares_several_labels_one_by_one(term):
    gold = GOLD["multi_label"]
    found = distillation_loss(STUDENT, TEACHER, gold, Objective(2, 1, {term: 3}))
    of_each = [
        OF_ROWS[term](*(torch.stack((x[:, at], torch.zeros(3)), -1) for x in (STUDENT, TEACHER)), 2)
        for at in range(3)
    ]
    torch.testing.assert_close(found, 3 * torch.stack(of_each).mean())


@pytest.mark.parametrize("term", ["dkd", "dist"])
def test_a_term_of_one_label_refuses_several(term):
    with pytest.raises(ValueError, match=f"{term} compares .* several labels take kl, reverse_kl"):
        distillation_loss(STUDENT, TEACHER, GOLD["multi_label"], Objective(2, 0.5, {term: 1}))


@problems
def test_terms_about_the_inside_of_models_are_left_out(problem):
    gold = GOLD[problem]
    objective = Objective(2, 0.5, {"hidden": 9, "kl": 1, "relations": 3})
    expected = distillation_loss(STUDENT, TEACHER, gold, Objective(2, 0.5))
    assert distillation_loss(STUDENT, TEACHER, gold, objective) == expected
    alone = distillation_loss(STUDENT, TEACHER, gold, Objective(2, 0.5, {"hidden": 9}))
    torch.testing.assert_close(alone, cross_entropy(problem) / 2)


@problems
def test_the_teacher_is_compared_by_standardized_logits_and_gold_by_plain_ones(problem):
    scores = [torch.from_numpy(stats.zscore(x[:2], axis=1)) for x in (STUDENT, TEACHER)]
    soft = divergence_of(problem, *scores).mean()
    hard = cross_entropy(problem, slice(2))
    for alpha in (0.0, 0.3, 1.0):
        objective = Objective(2, alpha, standardize=True)
        found = distillation_loss(STUDENT[:2], TEACHER[:2], GOLD[problem][:2], objective)
        torch.testing.assert_close(found, alpha * soft + (1 - alpha) * hard)


TERMS = {"single_label": list(OF_ROWS), "multi_label": ["kl", "reverse_kl", "js"]}


@given(pairs, st.sampled_from(list(GOLD)), st.booleans(), st.data())
@settings(deadline=None, max_examples=100)
def test_the_bag_of_words_lowers_the_same_loss(pair, problem, weighed, data):
    logits, told = pair[0], pair[1].astype(np.float32)
    rows, count = logits.shape
    if problem == "single_label":
        gold = data.draw(arrays(np.int64, rows, elements=st.integers(-1, count - 1)))
    else:
        gold = data.draw(arrays(np.int64, (rows, count), elements=st.integers(0, 1)))
        gold[data.draw(arrays(bool, rows))] = NO_LABEL
    terms = data.draw(st.dictionaries(st.sampled_from(TERMS[problem]), tenths, min_size=1))
    objective = Objective(
        data.draw(temperatures), data.draw(tenths), terms, data.draw(st.booleans())
    )
    weights = np.linspace(0.25, 4, count, dtype=np.float32) if weighed else None
    classes = tuple("abcdef"[:count])
    split = Split(("row",) * rows, gold)
    training_set = TrainingSet(
        rows=split,
        soft_labels=SoftLabels(told, classes, "t1"),
        validation=split,
        classes=classes,
        objective=objective,
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
        objective,
        None if weights is None else torch.from_numpy(weights).double(),
    )
    loss.backward()
    found, slope = loss_and_slope(logits, training_set)
    assert found == pytest.approx(loss.item(), rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(slope, student.grad, rtol=1e-9, atol=1e-9)


@problems
def test_the_gradient_is_the_slope_of_the_loss(problem):
    terms = dict.fromkeys(TERMS[problem], 0.7)
    gold = GOLD[problem].clone()
    gold[1] = NO_LABEL
    teacher = draw(1, 3, 3)
    for standardize in (False, True):
        objective = Objective(2, 0.3, terms, standardize)
        assert torch.autograd.gradcheck(
            lambda student, objective=objective: distillation_loss(
                student, teacher, gold, objective
            ),
            draw(2, 3, 3).requires_grad_(),
        )


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_loss_names_its_step_and_learning_rate(broken):
    with pytest.raises(DivergedError, match=r"in step 3 at learning_rate 0\.01\. Lower it\."):
        check_finite(torch.tensor(broken), 3, 0.01)
    check_finite(torch.tensor(1e30), 3, 0.01)


# What happens inside

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1]])
HIDDEN_TERMS = {
    "cosine": hidden_distance,
    "mse": hidden_mse,
    "relations": partial(relation_divergence, heads=2),
}
hidden_losses = pytest.mark.parametrize("loss", HIDDEN_TERMS.values(), ids=HIDDEN_TERMS)


def test_the_distance_of_hidden_states_is_the_one_by_hand():
    student = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    teacher = torch.tensor([[[3.0, 0.0], [1.0, 0.0], [-9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    # The same direction, then a right angle.
    assert hidden_distance(student, teacher, mask).tolist() == pytest.approx([(0 + 1) / 2])
    assert hidden_distance(student, -student, mask).tolist() == pytest.approx([2])
    assert hidden_mse(student, teacher, mask).tolist() == pytest.approx([(1 / 2 + 2 / 2) / 2])


def test_the_relations_of_two_tokens_are_those_by_hand():
    # One head of width 1: products 0·0, 0·a for the first token, a·0, a·a for the second.
    student, teacher = torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[0.0], [sqrt(log(3))]]])
    second = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    found = relation_divergence(student, teacher, torch.ones(1, 2), heads=1)
    assert found.tolist() == pytest.approx([(0 + second) / 2])


@hidden_losses
@given(seeds)
@quick
def test_inside_a_loss_is_never_negative_and_zero_at_equality(loss, seed):
    student, teacher = draw(seed, 2, 3, 4, 6)
    found = loss(student, teacher, MASK)
    assert found.shape == (3,)
    assert (found > -1e-9).all()
    assert loss(teacher, teacher, MASK).abs().max() < 1e-9
    student = teacher.clone().requires_grad_()
    loss(student, teacher, MASK).sum().backward()
    assert student.grad.abs().max() < 1e-9


@hidden_losses
@given(seeds, st.integers(0, 3), st.integers(0, 3), st.sampled_from([1.0, 1e4]))
@quick
def test_padding_changes_nothing(loss, seed, before, after, size):
    student, teacher = draw(seed, 2, 3, 4, 6)
    padded = [
        torch.cat([size * draw(seed + 1, 3, before, 6), x, size * draw(seed + 2, 3, after, 6)], 1)
        for x in (student, teacher)
    ]
    mask = functional.pad(MASK, (before, after))
    torch.testing.assert_close(loss(*padded, mask), loss(student, teacher, MASK))
    padded[0].requires_grad_()
    loss(*padded, mask).sum().backward()
    assert padded[0].grad[mask == 0].count_nonzero() == 0


@hidden_losses
def test_a_row_of_padding_alone_costs_nothing(loss):
    student, teacher = draw(0, 2, 2, 4, 6)
    student.requires_grad_()
    mask = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    found = loss(student, teacher, mask)
    found.sum().backward()
    assert found[0] == 0
    assert found[1] > 0
    assert student.grad.isfinite().all()


@hidden_losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_and_empty_states_have_finite_gradients(loss, dtype):
    teacher = 1e4 * draw(0, 3, 4, 6).to(dtype).sign()
    for start in (-teacher, torch.zeros_like(teacher)):
        student = start.clone().requires_grad_()
        found = loss(student, teacher, MASK)
        found.sum().backward()
        assert found.dtype == dtype
        assert found.isfinite().all()
        assert student.grad.isfinite().all()


def real_means(values):
    """Return the mean over real tokens of values (rows, tokens), row by row."""
    return [values[row][real].mean() for row, real in enumerate(MASK.bool().numpy())]


@given(seeds)
@quick
def test_hidden_losses_are_those_of_numpy_after_the_projection(seed):
    student, teacher = draw(seed, 3, 4, 5), draw(seed + 1, 3, 4, 8)
    torch.manual_seed(seed)
    projection = torch.nn.Linear(5, 8).double()
    matrix, bias = (x.detach().numpy() for x in (projection.weight, projection.bias))
    said, told = student.numpy() @ matrix.T + bias, teacher.numpy()
    lengths = np.linalg.norm(said, axis=-1) * np.linalg.norm(told, axis=-1)
    cosines = np.einsum("rtw,rtw->rt", said, told) / lengths
    with torch.no_grad():
        by_angle = hidden_distance(student, teacher, MASK, projection)
        by_size = hidden_mse(student, teacher, MASK, projection)
    np.testing.assert_allclose(by_angle, real_means(1 - cosines))
    np.testing.assert_allclose(by_size, real_means(((said - told) ** 2).mean(-1)))


def test_the_projection_learns_too():
    projection = torch.nn.Linear(5, 8)
    hidden_distance(torch.randn(3, 4, 5), torch.randn(3, 4, 8), MASK, projection).sum().backward()
    assert projection.weight.grad.abs().max() > 0


@given(seeds, st.sampled_from([1, 2, 4]))
@quick
def test_relations_are_those_of_numpy_whatever_the_widths(seed, heads):
    student, teacher = draw(seed, 3, 4, 8), draw(seed + 1, 3, 4, 12)
    expected = []
    for row, real in enumerate(MASK.bool().numpy()):
        losses = []
        for head in range(heads):
            said, told = (
                softened(part @ part.T, sqrt(part.shape[1]))
                for whole in (student, teacher)
                for part in [np.split(whole[row][real].numpy(), heads, axis=1)[head]]
            )
            losses += list(stats.entropy(told, said, axis=1))
        expected.append(np.mean(losses))
    found = relation_divergence(student, teacher, MASK, heads)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


@given(seeds)
@quick
def test_turning_the_vectors_of_a_head_changes_no_relation(seed):
    student, teacher = draw(seed, 2, 3, 4, 6)
    turn = torch.block_diag(*(torch.linalg.qr(draw(seed + at, 3, 3)).Q for at in range(2)))
    torch.testing.assert_close(
        relation_divergence(student @ turn, teacher, MASK, 2),
        relation_divergence(student, teacher, MASK, 2),
    )


def test_heads_that_do_not_divide_a_width_are_refused():
    student, teacher = torch.zeros(1, 2, 8), torch.zeros(1, 2, 12)
    with pytest.raises(ValueError, match="3 relation heads do not divide a width of 8"):
        relation_divergence(student, teacher, torch.ones(1, 2), 3)
