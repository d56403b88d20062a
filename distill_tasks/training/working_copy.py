"""A bfloat16 copy of a model for forward and backward passes; the model stays in float32."""

from __future__ import annotations

import copy

import torch
from torch.nn import Embedding, Module, Parameter


def learns_embeddings(model: Module) -> bool:
    """Return whether a model trains its embeddings, whose gradients need float32.

    The gradient of a frequent token is a sum over thousands of positions, which bfloat16 rounds too
    coarsely: teachers trained in a copy had lower accuracy (docs/decisions.md).
    """
    tables = [part for part in model.modules() if isinstance(part, Embedding)]
    return any(table.weight.requires_grad for table in tables)


class WorkingCopy:
    """Runs forward and backward passes in bfloat16 for a model that takes its steps in float32.

    Autocast converts the same weights and states repeatedly, and computes everything between matrix
    products in float32: its steps take an eighth longer (docs/decisions.md).
    Source: Micikevicius et al. 2018, "Mixed Precision Training", section 3.1.
    """

    def __init__(self, model: Module) -> None:
        rounded = {  # buffers, such as rotary angles, stay in float32
            id(own): Parameter(own.detach().bfloat16(), own.requires_grad)
            for own in model.parameters()
        }
        self.copy = copy.deepcopy(model, rounded)
        pairs = list(zip(model.parameters(), self.copy.parameters(), strict=True))
        self.pairs = [(own, copied) for own, copied in pairs if own.requires_grad]

    def refresh(self, training: bool) -> Module:
        """Return the copy, updated to the model's present weights."""
        with torch.no_grad():
            for own, copied in self.pairs:
                copied.copy_(own)
        return self.copy.train(training)

    def hand_over(self) -> None:
        """Add the gradients of the copy to those of the model."""
        for own, copied in self.pairs:
            if copied.grad is None:
                continue
            gradient = copied.grad.to(own.dtype)
            own.grad = gradient if own.grad is None else own.grad + gradient
            copied.grad = None
