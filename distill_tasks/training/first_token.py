"""Computing the last layer for the first token alone, if the classifier reads no other one."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.models.bert.modeling_bert import BertLayer

from distill_tasks.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_DIFFERENCE = 1e-3
"""Largest difference between the logits of both ways, as a share of their spread over rows."""
PARTS = {"attention.self.query", "attention.output.dense", "intermediate.dense"}
"""The attributes of a layer with BERT's architecture, whatever its model is called."""
INPUTS = set(inspect.signature(BertLayer.forward).parameters)
"""The arguments of such a layer; others, as BigBird's block masks, would change its results."""


def find_layers(model: PreTrainedModel) -> str:
    """Return the name of the list of layers inside a model, as ``bert.encoder.layer``.

    Raises InputError for a model that has none.
    """
    depth = getattr(model.config, "num_hidden_layers", 0)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            return str(name)
    raise InputError(
        f"{type(model).__name__} has no list of {depth} layers to copy from. "
        "Use the families static or bag_of_words with this teacher."
    )


def read_first_token(model: PreTrainedModel) -> bool:
    """Let the last layer compute the first token alone, and return whether this model allows it.

    The logits stay the same: keys and values are still computed for every token, but queries,
    attention output and feed-forward for one only. Of an encoder layer's 12·d² multiplications for
    each token 2·d² remain. A model of another architecture, or whose head reads other tokens, stays
    unchanged.
    """
    if _find_last_layer(model) is None:
        return False
    # 16 bits would hide small differences
    exact = model if model.dtype == torch.float32 else copy.deepcopy(model).float()
    same = _stays_same(exact)
    if same:
        _replace_last_layer(model)
    return same


def _stays_same(model: PreTrainedModel) -> bool:
    """Return whether a model gives the same logits on the probe; the model stays unchanged."""
    training, layer = model.training, _find_last_layer(model)
    plain = type(layer)
    model.eval()
    try:
        whole = _probe(model)
        _replace_last_layer(model)
        return _agree(_probe(model), whole)
    except Exception:  # noqa: BLE001  # what models of other builds raise has no common name
        return False
    finally:
        layer.__class__ = plain
        model.train(training)


def _find_last_layer(model: PreTrainedModel) -> Any:
    """Return the last layer if it has BERT's architecture, else None."""
    try:
        layers: Any = model.get_submodule(find_layers(model))
    except InputError:
        return None
    layer = layers[-1]
    parts = {name for name, _ in layer.named_modules()}
    taken = set(inspect.signature(layer.forward).parameters)
    whole = parts >= PARTS and hasattr(layer, "feed_forward_chunk")
    return layer if whole and taken <= INPUTS else None


def _replace_last_layer(model: PreTrainedModel) -> None:
    """Replace the class of the last layer; a replaced method would be shared with copies of it."""
    layer = _find_last_layer(model)
    plain = type(layer)
    layer.__class__ = type(plain.__name__, (plain,), {"forward": _answer_for_first_token})


@functools.wraps(BertLayer.forward)
def _answer_for_first_token(
    layer: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    attended = _attend(layer, hidden_states, attention_mask)
    predictions: Tensor = layer.feed_forward_chunk(
        layer.attention.output(attended, hidden_states[:, :1])
    )
    return predictions


def _attend(layer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention output of the first token over all tokens (rows, 1, width).

    Source: Vaswani et al. 2017, "Attention Is All You Need", equation 1, for one query.
    """
    attention = layer.attention.self
    split = (hidden.shape[0], -1, attention.num_attention_heads, attention.attention_head_size)
    query = attention.query(hidden[:, :1]).view(split).transpose(1, 2)
    key = attention.key(hidden).view(split).transpose(1, 2)
    value = attention.value(hidden).view(split).transpose(1, 2)
    scores = query @ key.transpose(-1, -2) * attention.attention_head_size**-0.5
    if mask is not None:
        row = mask[:, :, :1]
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~row, lowest) if row.dtype == torch.bool else scores + row
    context = scores.softmax(dim=-1).to(value.dtype) @ value
    joined: Tensor = context.transpose(1, 2).reshape(hidden.shape[0], 1, -1)
    return joined


@torch.no_grad()
def _probe(model: PreTrainedModel) -> Tensor:
    """Return logits (4, classes) of two rows, once with padding and once without."""
    tokens = min(8, model.config.vocab_size)
    one = torch.arange(tokens, device=model.device)
    ids = torch.stack((one, one.flip(0)))
    mask = torch.ones_like(ids)
    mask[1, (tokens + 1) // 2 :] = 0
    padded: Tensor = model(input_ids=ids, attention_mask=mask).logits
    return torch.cat([padded, model(input_ids=ids).logits])


def _agree(given: Tensor, expected: Tensor) -> bool:
    """Return whether logits are equal up to rounding, measured against their spread over rows."""
    between_rows = (expected - expected.mean(dim=0)).abs().max()
    apart = (given - expected).abs().max()
    return given.shape == expected.shape and bool(apart < LARGEST_DIFFERENCE * between_rows)
