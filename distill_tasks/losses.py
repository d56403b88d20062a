"""Distillation losses, each a plain function that is zero where student and teacher agree."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from distill_tasks.corpus import NO_LABEL
from distill_tasks.errors import DivergedError


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(teacher‖student) at temperature T for each row.

    ``student`` and ``teacher`` are logits (rows, classes); the result is (rows,), zero at
    equality. T² keeps the gradient's scale independent of T.
    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    student_log = functional.log_softmax(student / temperature, dim=-1)
    teacher_log = functional.log_softmax(teacher / temperature, dim=-1)
    divergence = (teacher_log.exp() * (teacher_log - student_log)).sum(dim=-1)
    return divergence * temperature**2


def soft_divergence_per_label(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(teacher‖student) at temperature T for each row, the mean over yes-or-no labels.

    ``student`` and ``teacher`` are logits (rows, classes), each of a sigmoid; the result is
    (rows,), zero at equality. Source: Hinton et al. 2015, section 2, applied to each label's two
    outcomes, as Yang et al. 2023, "Multi-Label Knowledge Distillation", section 3.
    """
    total = torch.zeros_like(student)
    for sign in (1, -1):
        student_log = functional.logsigmoid(sign * student / temperature)
        teacher_log = functional.logsigmoid(sign * teacher / temperature)
        total = total + teacher_log.exp() * (teacher_log - student_log)
    return total.mean(dim=-1) * temperature**2


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
    temperature: float,
    alpha: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean over rows of α·T²·KL + (1−α)·CE, or of T²·KL alone where gold is absent.

    ``student`` and ``teacher`` are logits (rows, classes), ``labels`` and ``class_weights`` as in
    `gold_loss`; the result is a scalar. Every row weighs the same.
    Source: Hinton et al. 2015, section 2.
    """
    single = labels.dim() == 1
    divergence = soft_divergence if single else soft_divergence_per_label
    soft = divergence(student, teacher, temperature)
    hard = gold_loss(student, labels, class_weights)
    known = (labels if single else labels[:, 0]) != NO_LABEL
    weight = torch.where(known, alpha, 1.0)
    return (weight * soft + (1 - weight) * hard).mean()
