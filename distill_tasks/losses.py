"""Distillation losses, each a plain function that is zero where student and teacher agree."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from distill_tasks.corpus import NO_LABEL


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


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Return the mean over rows of α·T²·KL + (1−α)·CE, or of T²·KL alone where gold is absent.

    ``student`` and ``teacher`` are logits (rows, classes), ``labels`` (rows,) class numbers with
    -1 where a row has no gold; the result is a scalar. Every row weighs the same.
    Source: Hinton et al. 2015, section 2.
    """
    soft = soft_divergence(student, teacher, temperature)
    hard = functional.cross_entropy(student, labels, ignore_index=NO_LABEL, reduction="none")
    weight = torch.where(labels == NO_LABEL, 1.0, alpha)
    return (weight * soft + (1 - weight) * hard).mean()
