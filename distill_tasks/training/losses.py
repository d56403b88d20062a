"""Distillation losses: plain functions that are zero if student and teacher logits are equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from distill_tasks.core.errors import DivergedError
from distill_tasks.problems.classification import NO_LABEL
from distill_tasks.training.objective import HIDDEN_TERMS, Objective, Term

TARGET_WEIGHT, OTHERS_WEIGHT = 1.0, 8.0
"""Weights (α, β) of both parts of `decoupled_divergence`, the best of the paper's ablation."""
BETWEEN_CLASSES_WEIGHT, BETWEEN_ROWS_WEIGHT = 1.0, 1.0
"""Weights (β, γ) of both parts of `dist_divergence`, those of the authors' own code."""
SHORTEST = 1e-4
"""Deviations shorter than this are not scaled to length one: the gradient would be unbounded."""


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(teacher‖student) at temperature T for each row.

    ``student`` and ``teacher`` are logits (rows, classes); the result is (rows,), zero at
    equality. T² keeps the gradient's scale independent of T.
    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    student_log = functional.log_softmax(student / temperature, dim=-1)
    teacher_log = functional.log_softmax(teacher / temperature, dim=-1)
    return _divergence(teacher_log, student_log) * temperature**2


def reverse_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(student‖teacher) at temperature T for each row.

    Shapes as in `soft_divergence`; zero at equality. It favours students that concentrate on the
    teacher's likeliest classes and neglect the others.
    Source: Gu et al. 2024, "MiniLLM: Knowledge Distillation of Large Language Models", equation 1.
    """
    return soft_divergence(teacher, student, temperature)


def jensen_shannon(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² times the Jensen–Shannon divergence at temperature T for each row.

    Shapes as in `soft_divergence`; zero at equality, at most T²·log 2, the same for either order.
    Source: Lin 1991, "Divergence Measures Based on the Shannon Entropy", section IV, in nats.
    """
    student_log = functional.log_softmax(student / temperature, dim=-1)
    teacher_log = functional.log_softmax(teacher / temperature, dim=-1)
    middle_log = torch.logaddexp(student_log, teacher_log) - math.log(2)
    both = _divergence(student_log, middle_log) + _divergence(teacher_log, middle_log)
    return both / 2 * temperature**2


def decoupled_divergence(
    student: Tensor, teacher: Tensor, temperature: float, labels: Tensor
) -> Tensor:
    """Return T²·(α·TCKD + β·NCKD) at temperature T for each row.

    TCKD is KL(teacher‖student) of the target class against all others together, NCKD that among the
    others alone. Unlike in the plain KL, NCKD is not weighted by the teacher's uncertainty; with
    two classes it is zero. The target is gold, or the teacher's likeliest class without gold.
    ``student`` and ``teacher`` are logits (rows, classes), ``labels`` class numbers (rows,) or -1;
    the result is (rows,), zero at equality.
    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", section 3.3, equation 7.
    """
    target = torch.where(labels == NO_LABEL, teacher.argmax(dim=-1), labels)[:, None]
    student, teacher = student / temperature, teacher / temperature
    student_others, teacher_others = _leave_out(student, target), _leave_out(teacher, target)
    about_target = soft_divergence(
        _target_or_not(student, target, student_others),
        _target_or_not(teacher, target, teacher_others),
        1,
    )
    about_others = soft_divergence(student_others, teacher_others, 1)
    return (TARGET_WEIGHT * about_target + OTHERS_WEIGHT * about_others) * temperature**2


def dist_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T²·(β·inter + γ·intra) at temperature T for each row.

    Inter is 1 − Pearson's correlation of student and teacher probabilities within a row; intra is
    that of each class over the rows of the batch, averaged over classes and added to every row.
    Constant probabilities have no correlation: the distance is 0 if both are constant, ½ if one is.
    ``student`` and ``teacher`` are logits (rows, classes); the result is (rows,), zero at equality.
    Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", equations 8 to 10.
    """
    ours = functional.softmax(student / temperature, dim=-1)
    theirs = functional.softmax(teacher / temperature, dim=-1)
    inter = _correlation_distance(ours, theirs, dim=1)
    intra = _correlation_distance(ours, theirs, dim=0).mean()
    return (BETWEEN_CLASSES_WEIGHT * inter + BETWEEN_ROWS_WEIGHT * intra) * temperature**2


def standardize_logits(logits: Tensor) -> Tensor:
    """Return logits (rows, classes) with mean 0 and standard deviation 1 in each row.

    The temperature divides afterwards; a row of equal logits becomes zeros.
    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation", algorithm 1.
    """
    return _unit_deviations(logits, dim=-1) * math.sqrt(logits.shape[-1])


RowLoss = Callable[[Tensor, Tensor, float], Tensor]
"""A loss of student and teacher logits (..., classes) at a temperature: one number for each row."""
OF_TWO_OUTCOMES: Mapping[Term, RowLoss] = {
    "kl": soft_divergence,
    "reverse_kl": reverse_divergence,
    "js": jensen_shannon,
}
"""The losses that can compare a single yes-or-no label, and so multi-label problems."""


def mean_over_labels(
    divergence: RowLoss, student: Tensor, teacher: Tensor, temperature: float
) -> Tensor:
    """Return a divergence for each row: the mean over its labels, each a yes-or-no distribution.

    ``student`` and ``teacher`` are logits (rows, labels) of sigmoids; the sigmoid of x is the
    softmax of (x/2, −x/2). The result is (rows,), zero at equality.
    Source: Yang et al. 2023, "Multi-Label Knowledge Distillation", section 3.
    """
    ours, theirs = (torch.stack((logits, -logits), dim=-1) / 2 for logits in (student, teacher))
    return divergence(ours, theirs, temperature).mean(dim=-1)


def gold_loss(student: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of gold for each row (rows,), zero for rows without gold.

    ``labels`` are class numbers (rows,), or zeros and ones (rows, classes) of a multi-label
    problem, whose cross-entropy is the mean over the labels; -1 stands for no gold.
    ``class_weights`` (classes,) weigh rows by their class, or the ones of each label.
    """
    if labels.dim() == 1:
        return functional.cross_entropy(
            student, labels, class_weights, ignore_index=NO_LABEL, reduction="none"
        )
    known = labels[:, 0] != NO_LABEL
    loss = functional.binary_cross_entropy_with_logits(
        student, labels.clamp(min=0).to(student), pos_weight=class_weights, reduction="none"
    )
    return loss.mean(dim=-1) * known


def check_finite(loss: Tensor, step: int, learning_rate: float) -> None:
    """Raise DivergedError if a loss is NaN or infinite."""
    if not torch.isfinite(loss):
        raise DivergedError(
            f"the loss became {loss.item()} in step {step} at learning_rate {learning_rate:g}. "
            "Lower it."
        )


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    objective: Objective,
    class_weights: Tensor | None = None,
    answer_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean over rows of α·Σ wᵢ·Lᵢ + (1−α)·CE, or of Σ wᵢ·Lᵢ alone without gold.

    The Lᵢ are the objective's terms and the wᵢ their weights, which are not normalised; terms that
    compare hidden states are left out. ``student`` and ``teacher`` are logits (rows, classes),
    ``labels`` and ``class_weights`` as in `gold_loss`; the result is a scalar. Every row weighs
    the same, but ``answer_weights`` (rows,) multiply what is learned from the teacher's answers.
    Raises ValueError for a term that cannot compare several labels.
    Source: Hinton et al. 2015, section 2.
    """
    soft = _soft_loss(student, teacher, labels, objective)
    if answer_weights is not None:
        soft = soft * answer_weights
    hard = gold_loss(student, labels, class_weights)
    known = (labels if labels.dim() == 1 else labels[:, 0]) != NO_LABEL
    return torch.where(known, objective.alpha * soft + (1 - objective.alpha) * hard, soft).mean()


def hidden_distance(
    student: Tensor, teacher: Tensor, mask: Tensor, projection: torch.nn.Linear | None = None
) -> Tensor:
    """Return 1 − cosine of hidden states for each row, the mean over its real tokens.

    ``student`` is (rows, tokens, student width), ``teacher`` (rows, tokens, teacher width),
    ``mask`` (rows, tokens) is nonzero at real tokens; ``projection``, from one width to the other,
    comes first where given. The result is (rows,), zero at equality.
    Source: Sanh et al. 2019, "DistilBERT, a distilled version of BERT", section 2.
    """
    ours = functional.normalize(_project(student, projection), dim=-1)
    theirs = functional.normalize(teacher, dim=-1)
    return _mean_over_tokens((ours - theirs).square().sum(dim=-1) / 2, mask)


def hidden_mse(
    student: Tensor, teacher: Tensor, mask: Tensor, projection: torch.nn.Linear | None = None
) -> Tensor:
    """Return the mean squared difference of hidden states for each row, over its real tokens.

    Arguments and result as in `hidden_distance`; zero at equality.
    Source: Jiao et al. 2020, "TinyBERT: Distilling BERT for Natural Language Understanding",
    equation 8.
    """
    return _mean_over_tokens((_project(student, projection) - teacher).square().mean(dim=-1), mask)


def relation_divergence(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return KL(teacher‖student) of self-attention relations for each row.

    ``student`` and ``teacher`` are the queries, keys or values (rows, tokens, width) of a layer,
    all attention heads side by side. They are split into ``heads`` relation heads; the relations of
    a token are the softmax of its scaled products with the real tokens. The result (rows,) is the
    mean over heads and real tokens, zero at equality. ``mask`` (rows, tokens) is nonzero at real
    tokens. Raises ValueError for a width that ``heads`` does not divide.
    Source: Wang et al. 2021, "MiniLMv2: Multi-Head Self-Attention Relation Distillation for
    Compressing Pretrained Transformers", section 3.1.
    """
    ours, theirs = _relate(student, mask, heads), _relate(teacher, mask, heads)
    return _mean_over_tokens(soft_divergence(ours, theirs, 1).mean(dim=1), mask)


def _divergence(told_log: Tensor, said_log: Tensor) -> Tensor:
    """Return KL(told‖said) of log-probabilities over the last dimension."""
    return (told_log.exp() * (told_log - said_log)).sum(dim=-1)


def _leave_out(logits: Tensor, target: Tensor) -> Tensor:
    """Return logits (rows, classes - 1) without each row's target class (rows, 1)."""
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, columns + (columns >= target).long())


def _target_or_not(logits: Tensor, target: Tensor, others: Tensor) -> Tensor:
    """Return the logits (rows, 2) of the target class and of any of the others."""
    return torch.cat((logits.gather(1, target), others.logsumexp(dim=1, keepdim=True)), dim=1)


def _correlation_distance(ours: Tensor, theirs: Tensor, dim: int) -> Tensor:
    """Return 1 − Pearson's correlation along a dimension.

    Computed as half the squared distance of unit deviations, it is exact where both are equal.
    """
    gap = _unit_deviations(ours, dim) - _unit_deviations(theirs, dim)
    return gap.square().sum(dim=dim) / 2


def _unit_deviations(values: Tensor, dim: int) -> Tensor:
    """Return deviations from the mean along a dimension, scaled to length 1 unless constant."""
    # With the largest value subtracted, equal values become exactly zero, however large they are.
    values = values - values.detach().amax(dim=dim, keepdim=True)
    deviations = values - values.mean(dim=dim, keepdim=True)
    return functional.normalize(deviations, dim=dim, eps=SHORTEST)


def _soft_loss(student: Tensor, teacher: Tensor, labels: Tensor, objective: Objective) -> Tensor:
    """Return the weighted sum of an objective's terms for each row (rows,)."""
    if objective.standardize:
        student, teacher = standardize_logits(student), standardize_logits(teacher)
    total = student.new_zeros(len(student))
    for term, weight in objective.terms.items():
        if term not in HIDDEN_TERMS:
            total = total + weight * _compare(term, student, teacher, labels, objective.temperature)
    return total


def _compare(
    term: Term, student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """Return one term for each row (rows,)."""
    several = labels.dim() == 2
    if term in OF_TWO_OUTCOMES:
        divergence = OF_TWO_OUTCOMES[term]
        if several:
            return mean_over_labels(divergence, student, teacher, temperature)
        return divergence(student, teacher, temperature)
    if several:
        allowed = ", ".join(OF_TWO_OUTCOMES)
        raise ValueError(f"{term} compares the classes of one label; several labels take {allowed}")
    if term == "dkd":
        return decoupled_divergence(student, teacher, temperature, labels)
    return dist_divergence(student, teacher, temperature)


def _project(student: Tensor, projection: torch.nn.Linear | None) -> Tensor:
    projected: Tensor = student if projection is None else projection(student)
    return projected


def _relate(vectors: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return scaled products (rows, heads, tokens, tokens) of vectors (rows, tokens, width)."""
    width = vectors.shape[-1]
    if width % heads:
        raise ValueError(f"{heads} relation heads do not divide a width of {width}")
    split: Tensor = vectors.unflatten(-1, (heads, -1)).transpose(1, 2)
    products = split @ split.transpose(-1, -2) / math.sqrt(width // heads)
    # Not minus infinity: 0·(−∞ + ∞) would be NaN.
    return products.masked_fill(mask[:, None, None, :] == 0, torch.finfo(products.dtype).min)


def _mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (rows,) of values (rows, tokens) at real tokens, zero without any."""
    real = mask != 0
    mean: Tensor = values.where(real, 0).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return mean
