"""The teacher in memory during training, for the losses that compare internal states."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distill_tasks.core.errors import InputError
from distill_tasks.problems.classification import NO_LABEL
from distill_tasks.training.device import choose_device
from distill_tasks.training.first_token import find_layers
from distill_tasks.training.losses import hidden_distance, relation_divergence
from distill_tasks.training.objective import HIDDEN_TERMS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill_tasks.training.checkpoint import Checkpoint
    from distill_tasks.training.objective import Objective

logger = logging.getLogger("potstill")

HIDDEN = "hidden"
RELATED = ("query", "key", "value")
"""The parts of a layer whose relations between tokens are compared."""
PROJECTION = "hidden_projection"
"""The name of the projection of a narrower student's states, present in training alone."""


class OnlineTeacher:
    """The frozen teacher, which runs on every batch that the student learns from."""

    def __init__(self, teacher: PreTrainedModel, objective: Objective) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.objective = objective
        self.weights = {
            term: objective.terms[term] for term in HIDDEN_TERMS if term in objective.terms
        }
        self.of_teacher = _Watch(teacher, related="relations" in self.weights)
        self.of_student: _Watch | None = None
        self.projection: torch.nn.Linear | None = None

    @contextmanager
    def joined(self, student: PreTrainedModel) -> Iterator[None]:
        """Attach to a student inside the block.

        A student of another width gets a projection to the teacher's width meanwhile. Raises
        InputError for a model without the parts that are compared.
        """
        if HIDDEN in self.weights:
            self._add_projection(student)
        self.of_student = _Watch(student, related="relations" in self.weights)
        try:
            yield
        finally:
            self.of_student.close()
            if self.projection is not None:
                delattr(student, PROJECTION)
            self.of_student = self.projection = None

    def loss(self, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Return the mean over rows of α·Σ wᵢ·Lᵢ, α being 1 without gold.

        The Lᵢ are the objective's terms that compare internal states, the wᵢ their weights.
        ``inputs`` is the batch that the student was just run on; ``labels`` are class numbers
        (rows,) or zeros and ones (rows, classes), -1 where there is no gold.
        """
        with torch.autocast(labels.device.type, enabled=False):
            with torch.no_grad():
                self.teacher.base_model(**inputs)
            mask = inputs["attention_mask"]
            found = [weight * self._compare(term, mask) for term, weight in self.weights.items()]
            known = (labels if labels.dim() == 1 else labels[:, 0]) != NO_LABEL
            return (
                torch.where(known, self.objective.alpha, 1.0) * torch.stack(found).sum(0)
            ).mean()

    def _compare(self, term: str, mask: Tensor) -> Tensor:
        """Return one term for each row (rows,)."""
        assert self.of_student is not None  # only a student that joined learns
        ours, theirs = self.of_student.states, self.of_teacher.states
        if term == HIDDEN:
            return hidden_distance(ours[HIDDEN], theirs[HIDDEN], mask, self.projection)
        heads = self.teacher.config.num_attention_heads
        relations = [relation_divergence(ours[part], theirs[part], mask, heads) for part in RELATED]
        return torch.stack(relations).mean(dim=0)

    def _add_projection(self, student: PreTrainedModel) -> None:
        width, wide = student.config.hidden_size, self.teacher.config.hidden_size
        if width != wide:
            self.projection = torch.nn.Linear(width, wide)
            student.add_module(PROJECTION, self.projection)


def load_online_teacher(teacher: Checkpoint, objective: Objective) -> OnlineTeacher:
    """Return the teacher in memory, in the precision that is fastest here."""
    from transformers import AutoModelForSequenceClassification

    device = choose_device()
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        teacher.model,
        revision=teacher.revision,
        dtype=torch.bfloat16 if device.bf16 else torch.float32,
        attn_implementation="eager",
        trust_remote_code=False,
    )
    online_teacher = OnlineTeacher(model.to(device.kind), objective)
    logger.info(
        "train: the teacher is beside the student for %s", " and ".join(online_teacher.weights)
    )
    return online_teacher


def check_relations(widths: Iterable[int], teacher: PreTrainedModel) -> None:
    """Raise InputError unless relations of a teacher and students of a width can be compared."""
    find_related(teacher)
    heads = teacher.config.num_attention_heads
    for width in widths:
        if width % heads:
            raise InputError(
                f"loss.terms has relations, in as many heads as the teacher's {heads}; a student "
                f"of width {width} cannot be split so. Set students.width to a multiple "
                f"of {heads}, or take relations out."
            )


def find_related(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Return the modules of a model's last layer that compute queries, keys and values.

    Raises InputError for a model that has no such parts.
    """
    layers: Any = model.get_submodule(find_layers(model))
    found = {
        name.rsplit(".", 1)[-1]: module
        for name, module in layers[-1].named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    if not all(part in found for part in RELATED):
        raise InputError(
            f"loss.terms has relations; the layers of {type(model).__name__} have no "
            f"{', '.join(RELATED)} as BERT's, RoBERTa's and ELECTRA's have. "
            "Take relations out, or use hidden."
        )
    return {part: found[part] for part in RELATED}


class _Watch:
    """Keeps the internal states of the latest batch that a model was run on, in float32."""

    def __init__(self, model: PreTrainedModel, related: bool) -> None:
        self.states: dict[str, Tensor] = {}
        parts = {HIDDEN: model.base_model, **(find_related(model) if related else {})}
        self.hooks = [part.register_forward_hook(self._keep(name)) for name, part in parts.items()]

    def close(self) -> None:
        """Detach from the model, and release the kept states."""
        for hook in self.hooks:
            hook.remove()
        self.states.clear()

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            state = output if isinstance(output, Tensor) else output[0]
            self.states[name] = state.float()

        return hook
