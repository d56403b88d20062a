"""The beginning that prompts share, read by the model once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SharedLayer(DynamicLayer):
    """The keys and values of one layer for the shared beginning, which later passes only read."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep what the first pass computed; from then on put it before that of each pass.

        Each tensor is (rows, heads, tokens, width); the first pass has a single row.
        """
        if not self.is_initialized:
            return super().update(key_states, value_states, *args, **kwargs)
        rows = len(key_states)
        assert self.keys is not None
        assert self.values is not None
        keys, values = (kept.expand(rows, -1, -1, -1) for kept in (self.keys, self.values))
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


class SharedPrefix:
    """Tokens with which all prompts begin, and what the model made of them."""

    def __init__(self, model: PreTrainedModel, tokens: Sequence[int]) -> None:
        self.tokens = tuple(tokens)
        self.cache: Cache | None = None
        """Absent where there are no such tokens."""
        if self.tokens:
            self.cache = Cache(layer_class_to_replicate=SharedLayer)
            ids = torch.tensor([self.tokens], device=model.device)
            with torch.inference_mode():
                model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)

    def begins(self, tokens: Sequence[int]) -> bool:
        """Return whether some tokens begin with these, and go on."""
        return len(tokens) > len(self.tokens) and tuple(tokens[: len(self)]) == self.tokens

    def __len__(self) -> int:
        return len(self.tokens)


def find_common(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return the longest beginning of all prompts that leaves each of them a token at least."""
    ordered = [tuple(prompt) for prompt in prompts]
    first, last = min(ordered), max(ordered)  # of sorted prompts these two differ the earliest
    most = min(len(prompt) for prompt in prompts) - 1
    pairs = zip(first[:most], last[:most], strict=True)
    length = next((place for place, (one, other) in enumerate(pairs) if one != other), most)
    return list(first[:length])
