"""Narrowing a transformer: fewer hidden directions, attention heads and feed-forward units."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill_tasks.core.errors import InputError
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.device import choose_device

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

PROBE_TOKENS = 8_192
"""Tokens of the training set by which a narrow student's initial weights are fitted."""
NARROWED = ("bert", "camembert", "electra", "roberta", "xlm-roberta")
"""Types of models that can be narrowed, because the axes of all their weights are known."""
AXES: Mapping[str, tuple[str | None, ...]] = {
    "attention.self.query": ("heads", "hidden"),
    "attention.self.key": ("heads", "hidden"),
    "attention.self.value": ("heads", "hidden"),
    "attention.output.dense": ("hidden", "heads"),
    "intermediate.dense": ("inner", "hidden"),
    "output.dense": ("hidden", "inner"),
    "LayerNorm": ("hidden",),
    "_embeddings": (None, "hidden"),
    "embeddings_project": ("hidden", None),
    "pooler.dense": ("head", "hidden"),
    "classifier.dense": ("head", "hidden"),
    "classifier.out_proj": (None, "head"),
    "classifier": (None, "head"),
}
"""What each axis of a weight counts, by the suffix of its module's name; the first match holds."""


def check_sizes(config: PretrainedConfig, width: int | None, feed_forward: int | None) -> None:
    """Raise InputError unless a model can be narrowed to a width and a feed-forward size."""
    if width is None and feed_forward is None:
        return
    if config.model_type not in NARROWED:
        raise InputError(
            f"A teacher of type {config.model_type} cannot be narrowed, only {', '.join(NARROWED)}."
            " Leave out students.width and students.feed_forward."
        )
    head = config.hidden_size // config.num_attention_heads
    if width is not None and (width % head or width > config.hidden_size):
        raise InputError(
            f"students.width is {width}; the teacher is {config.hidden_size} wide, its attention "
            f"heads {head}. Set it to a multiple of {head}, {config.hidden_size} at most."
        )
    if width == getattr(config, "embedding_size", config.hidden_size) < config.hidden_size:
        raise InputError(
            f"students.width is {width}, as wide as the teacher's embeddings, which leaves no "
            "place for what it does between these and its layers. Set another width."
        )
    if feed_forward is not None and feed_forward > config.intermediate_size:
        raise InputError(
            f"students.feed_forward is {feed_forward}; the teacher has {config.intermediate_size} "
            f"units. Set it to {config.intermediate_size} at most."
        )


def read_probe(teacher: Checkpoint, texts: Sequence[str]) -> dict[str, Tensor]:
    """Return the teacher's token ids and mask (rows, tokens) of texts of every length."""
    import numpy as np

    from distill_tasks.training.tokens import shorten_all

    tokenizer = teacher.open_tokenizer()
    rows = min(len(texts), max(1, PROBE_TOKENS // teacher.max_length))
    spread = [texts[row] for row in np.linspace(0, len(texts) - 1, rows).astype(int)]
    encoded = tokenizer(
        shorten_all(tokenizer, spread, teacher.max_length),
        truncation=True,
        max_length=teacher.max_length,
        padding="longest",
        return_tensors="pt",
    )
    return {key: encoded[key] for key in ("input_ids", "attention_mask")}


def narrow(
    full: PreTrainedModel,
    width: int | None,
    feed_forward: int | None,
    probe: Mapping[str, Tensor],
) -> PreTrainedModel:
    """Return a model with narrower hidden states and feed-forward parts and similar answers.

    One orthonormal matrix, the principal directions of the hidden states of ``probe``, projects
    these to ``width``: weights that write hidden states are multiplied by it, weights that read
    them by its transpose. Attention heads keep their width, so there are fewer of them; the heads
    and units with the largest |in|·|out| stay. Layer norms are then fitted to give the means and
    deviations that they give in the full model.

    Sources: Ashkboos et al. 2024, "SliceGPT" (PCA of hidden states); Li et al. 2017, "Pruning
    Filters for Efficient ConvNets" (units by their norm, here on both sides); Jordan et al. 2023,
    "REPAIR" (means and deviations).
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    check_sizes(full.config, width, feed_forward)
    config = _narrow_config(full.config, width, feed_forward)
    if config.to_dict() == full.config.to_dict():
        return full
    student: PreTrainedModel = AutoModelForSequenceClassification.from_config(
        config,
        attn_implementation=choose_device().training_attention,
        dtype="float32",
        trust_remote_code=False,
    )
    with torch.no_grad():
        seen = _read_norms(full.eval(), probe)
        basis = main_directions(list(seen.values()), config.hidden_size)
        student.load_state_dict(_project(full, config, basis))
        _match_norms(student.eval(), probe, {name: states @ basis for name, states in seen.items()})
    return student


def main_directions(states: Sequence[Tensor], width: int) -> Tensor:
    """Return the orthonormal directions (full width, width) with most of the states' variation.

    Each of ``states`` is (tokens, full width). If all directions are kept, they are the axes.
    """
    import torch

    if states[0].shape[1] == width:
        return torch.eye(width)
    moments = sum(part.double().T @ part.double() for part in states)
    directions: Tensor = torch.linalg.eigh(moments).eigenvectors[:, -width:].float()
    return directions


def strongest(into: Tensor, out: Tensor, kept: int, size: int = 1) -> Tensor:
    """Return the 0/1 matrix (units, kept·size) that selects the groups with the most |in|·|out|.

    ``into`` is (units, inputs), ``out`` (outputs, units); ``size`` consecutive units are a group.
    """
    import torch

    reads = into.reshape(len(into) // size, -1).norm(dim=1)
    writes = out.T.reshape(len(into) // size, -1).norm(dim=1)
    groups = (reads * writes).topk(kept).indices.sort().values
    units = groups[:, None] * size + torch.arange(size)
    return torch.eye(len(into))[:, units.flatten()]


def _narrow_config(
    config: PretrainedConfig, width: int | None, feed_forward: int | None
) -> PretrainedConfig:
    """Return the configuration of a narrower model whose heads are as wide as before."""
    narrower = copy.deepcopy(config)
    narrower.intermediate_size = feed_forward or config.intermediate_size
    if width is not None:
        narrower.hidden_size = width
        narrower.num_attention_heads = width * config.num_attention_heads // config.hidden_size
        if getattr(config, "embedding_size", None) == config.hidden_size:
            narrower.embedding_size = width
    return narrower


def _pass_norms(
    model: PreTrainedModel,
    probe: Mapping[str, Tensor],
    hook: Callable[[str, torch.nn.LayerNorm, Tensor, Tensor], Tensor | None],
) -> None:
    """Run a model on the probe, with ``hook`` called on the input and output of each layer norm.

    Only norms of hidden states are included. The hook's return value replaces the output.
    """
    import torch

    handles = [
        module.register_forward_hook(
            lambda norm, given, left, name=name: hook(name, norm, given[0], left)
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
        and module.normalized_shape == (model.config.hidden_size,)
    ]
    model(**probe)
    for handle in handles:
        handle.remove()


def _read_norms(model: PreTrainedModel, probe: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the output of every norm (tokens, width), without padding."""
    seen, real = {}, probe["attention_mask"].bool()

    def keep(name: str, _norm: torch.nn.LayerNorm, _entered: Tensor, left: Tensor) -> None:
        seen[name] = left[real]

    _pass_norms(model, probe, keep)
    return seen


def _match_norms(
    model: PreTrainedModel, probe: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Fit every norm so that its output has the mean and deviation of ``wanted`` (tokens, width).

    All are fitted in one forward pass, so that each norm sees the outputs of the fitted ones.
    """
    from torch.nn.functional import layer_norm

    real = probe["attention_mask"].bool()

    def match(name: str, norm: torch.nn.LayerNorm, entered: Tensor, _left: Tensor) -> Tensor:
        plain = layer_norm(entered, entered.shape[-1:], eps=norm.eps)
        here, there = plain[real], wanted[name]
        spread = here.std(dim=0, correction=0).clamp_min(norm.eps)
        norm.weight.copy_(there.std(dim=0, correction=0) / spread)
        norm.bias.copy_(there.mean(dim=0) - norm.weight * here.mean(dim=0))
        return plain * norm.weight + norm.bias

    _pass_norms(model, probe, match)


def _project(full: PreTrainedModel, config: PretrainedConfig, basis: Tensor) -> dict[str, Tensor]:
    """Return all weights of a model, with every axis reduced to its size in ``config``."""
    from distill_tasks.training.first_token import find_layers

    state, stack = full.state_dict(), find_layers(full)
    layers: Any = full.get_submodule(stack)
    inside = [_choose_units(layer, config) for layer in layers]
    everywhere = {"hidden": basis, "head": _choose_head_units(state, config.hidden_size)}
    narrower = {}
    for name, value in state.items():
        matrices = everywhere
        if name.startswith(f"{stack}."):
            number = name.removeprefix(f"{stack}.").split(".", 1)[0]
            matrices = everywhere | inside[int(number)]
        narrower[name] = _project_weight(name, value, matrices)
    return narrower


def _project_weight(name: str, value: Tensor, matrices: Mapping[str, Tensor]) -> Tensor:
    """Return a weight or bias multiplied along each axis by the matrix that reduces that axis."""
    import torch

    module = name.rsplit(".", 1)[0]
    axes = next((axes for end, axes in AXES.items() if module.endswith(end)), ())
    for axis, counted in enumerate(axes[: value.ndim]):
        if counted and len(matrices[counted]) == value.shape[axis]:
            multiplied = torch.tensordot(value, matrices[counted], dims=([axis], [0]))
            value = multiplied.movedim(-1, axis).contiguous()
    return value


def _choose_units(layer: Any, config: PretrainedConfig) -> dict[str, Tensor]:
    """Return the 0/1 matrices that select the heads and the feed-forward units of a layer."""
    attention = layer.attention
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    value, output = attention.self.value.weight, attention.output.dense.weight
    into, out = layer.intermediate.dense.weight, layer.output.dense.weight
    return {
        "heads": strongest(value, output, heads, size),
        "inner": strongest(into, out, config.intermediate_size),
    }


def _choose_head_units(state: Mapping[str, Tensor], width: int) -> Tensor:
    """Return the 0/1 matrix that selects the units between the classifier's two matrices."""
    into, out = (
        next(value for name, value in state.items() if name.endswith(ends))
        for ends in (
            ("pooler.dense.weight", "classifier.dense.weight"),
            ("classifier.out_proj.weight", "classifier.weight"),
        )
    )
    return strongest(into, out, width)
