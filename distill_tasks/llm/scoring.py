"""How likely a local language model finds each label after a prompt, in one forward pass.

What all prompts begin with is read once and kept. Behind each prompt stand the tokens of all labels
as a tree, of which every token sees the prompt and the tokens before it in its own label alone
("tree attention": Miao et al. 2023, SpecInfer, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from distill_tasks.core.errors import InputError, say_error
from distill_tasks.llm.prefix import SharedPrefix, find_common
from distill_tasks.llm.trie import PROMPT, LabelTrie

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

BATCH_TOKENS = 8_192
"""Tokens in a batch, those of the shared beginning counted for every row."""
BATCH_LOGITS = 2**26
"""Logits in a batch: 256 MB in float32."""
TOLERANCES = {torch.float32: 0.01, torch.bfloat16: 0.5, torch.float16: 0.1}
"""How far a log-probability may lie from that of a plain pass, in nats; rounding explains less."""


@dataclass(frozen=True)
class LabelScores:
    """How likely each label is after each prompt."""

    log_probabilities: NDArray[np.float32]
    """(rows, classes); their exponentials sum to one in each row."""
    off_labels: NDArray[np.float32]
    """The probability (rows,) that the first token of the answer begins no label."""


class LabelScorer:
    """A causal language model, and the labels that it chooses from."""

    def __init__(self, model: PreTrainedModel, labels: Sequence[Sequence[int]], end: int) -> None:
        self.model = model
        self.trie = LabelTrie.build(labels, end)
        self.prefix: SharedPrefix | None = None
        self._steps = torch.from_numpy(self.trie.steps).to(model.device)

    def score(self, prompts: Sequence[Sequence[int]]) -> LabelScores:
        """Return the scores of all labels after each prompt, given as token ids.

        Raises InputError for a model whose attention cannot share a beginning.
        """
        if self.prefix is None or not all(map(self.prefix.begins, prompts)):
            self.prefix = self._share(prompts)
        order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
        scored = np.empty((len(prompts), len(self.trie.labels)), np.float32)
        off_labels = np.empty(len(prompts), np.float32)
        for start, stop in pairwise(self._part([len(prompts[row]) for row in order])):
            rows = order[start:stop]
            scored[rows], off_labels[rows] = self._read([prompts[row] for row in rows])
        return LabelScores(scored, off_labels)

    def _share(self, prompts: Sequence[Sequence[int]]) -> SharedPrefix:
        """Return the beginning of some prompts; raise InputError if the model cannot share it."""
        longest, label = max(prompts, key=len), max(self.trie.labels, key=len)
        name = self.model.config.model_type
        try:
            prefix = self.prefix = SharedPrefix(self.model, find_common(prompts))
            shared = self._read([longest])[0][0, self.trie.labels.index(label)]
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"A {name} model cannot read a beginning once for all texts ({say_error(error)}). "
                "Use another model, or serve it behind an endpoint."
            ) from None
        plain = score_plainly(self.model, longest, self.trie.labels, label)
        if not abs(shared - plain) <= TOLERANCES[self.model.dtype]:
            raise InputError(
                f"A {name} model answers otherwise where texts share a beginning: {shared:.2f} "
                f"instead of {plain:.2f}. Use another model, or serve it behind an endpoint."
            )
        return prefix

    def _part(self, lengths: Sequence[int]) -> Iterator[int]:
        """Yield where batches begin among prompts of these lengths, the longest first."""
        most = BATCH_LOGITS // (len(self.trie.choices) * self.model.config.vocab_size)
        start = 0
        while start < len(lengths):
            yield start
            tokens = lengths[start] + len(self.trie.tokens)
            start += max(1, min(BATCH_TOKENS // tokens, most))
        yield len(lengths)

    def _read(
        self, prompts: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return log-probabilities (rows, classes) and the mass off the labels (rows,)."""
        assert self.prefix is not None
        batch = TreeBatch(prompts, self.prefix, self.trie)
        with torch.inference_mode():
            logits = batch.read(self.model).float()
            parts = [
                logits[:, number, list(choice.options)].log_softmax(-1)
                for number, choice in enumerate(self.trie.choices)
            ]
            scored = torch.cat(parts, dim=-1) @ self._steps
            first = logits[:, 0].softmax(-1)[:, list(self.trie.choices[0].options)]
            off_labels = (1 - first.sum(-1)).clamp(0, 1)
        return scored.cpu().numpy(), off_labels.cpu().numpy()


class TreeBatch:
    """Prompts without their shared beginning, padded on the left, and the tree behind each.

    Tensors are (rows, tokens), and (rows, 1, tokens, seen tokens) what each token sees.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        prefix: SharedPrefix,
        trie: LabelTrie,
    ) -> None:
        shared = len(prefix)
        rests = [prompt[shared:] for prompt in prompts]
        length, nodes = max(map(len, rests)), len(trie.tokens)
        ids = np.zeros((len(rests), length + nodes), np.int64)
        lengths = np.array([len(rest) for rest in rests])[:, None]
        for cells, rest in zip(ids, rests, strict=True):
            cells[length - len(rest) : length] = rest
        ids[:, length:] = trie.tokens
        own = np.maximum(np.arange(length) - length + lengths, 0)
        behind = lengths + np.array(trie.depths, np.int64) - 1
        self.ids = torch.from_numpy(ids)
        self.positions = torch.from_numpy(shared + np.concatenate([own, behind], axis=1))
        self.prefix = prefix
        self.seen = self._see(np.arange(length) >= length - lengths, trie)
        self.kept = torch.tensor(
            [
                length + choice.place if choice.place != PROMPT else length - 1
                for choice in trie.choices
            ]
        )

    def _see(self, real: NDArray[np.bool_], trie: LabelTrie) -> Tensor:
        """Return what each token sees; ``real`` (rows, tokens) are those that are no padding."""
        rows, length = real.shape
        tokens, shared = length + len(trie.tokens), len(self.prefix)
        seen = np.zeros((rows, tokens, shared + tokens), np.bool_)
        seen[..., :shared] = True
        own = seen[..., shared:]
        own[:, :length, :length] = np.tri(length, dtype=np.bool_) & real[:, None]
        own[:, length:, :length] = real[:, None]
        own[:, length:, length:] = trie.before
        own[:, np.arange(tokens), np.arange(tokens)] = True  # padding sees itself, to be finite
        return torch.from_numpy(seen)

    def read(self, model: PreTrainedModel) -> Tensor:
        """Return the logits (rows, choices, vocabulary) of the tokens behind which labels part."""
        device = model.device
        output = model(
            input_ids=self.ids.to(device),
            position_ids=self.positions.to(device),
            attention_mask=self._mask(model),
            past_key_values=self.prefix.cache,
            use_cache=self.prefix.cache is not None,
            logits_to_keep=self.kept.to(device),
        )
        logits: Tensor = output.logits
        return logits

    def _mask(self, model: PreTrainedModel) -> Tensor | dict[str, Tensor]:
        """Return what is added to attention, for each type of layer if the model has several."""
        settings = model.config.get_text_config()
        types = set(getattr(settings, "layer_types", None) or ())
        window = getattr(settings, "sliding_window", None)
        whole = _to_bias(self.seen, model)
        if window is None or types == {"full_attention"}:
            return whole
        shared = torch.arange(len(self.prefix)).expand(len(self.ids), -1)
        others = torch.cat([shared, self.positions], dim=1)
        near = self.positions[:, :, None] - others[:, None] < window
        narrow = _to_bias(self.seen & near, model)
        both = {"full_attention": whole, "sliding_attention": narrow}
        return both if types == both.keys() else narrow


def score_plainly(
    model: PreTrainedModel,
    prompt: Sequence[int],
    labels: Sequence[tuple[int, ...]],
    label: tuple[int, ...],
) -> float:
    """Return the log-probability of one of several labels after a prompt, read for it alone.

    ``labels`` are closed, as by `close_labels`. It shares nothing, and is what `LabelScorer` is
    compared with.
    """
    ids = torch.tensor([[*prompt, *label[:-1]]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, logits_to_keep=len(label)).logits[0].float()
    total = 0.0
    for place, token in enumerate(label):
        begun = [other for other in labels if other[:place] == label[:place]]
        options = sorted({other[place] for other in begun})
        chances = logits[place, options].log_softmax(-1)
        total += chances[options.index(token)].item()
    return total


def _to_bias(seen: Tensor, model: PreTrainedModel) -> Tensor:
    """Return zero where a token sees another, and the least number there is where it does not."""
    bias = torch.zeros(seen.shape, dtype=model.dtype)
    return bias.masked_fill_(~seen, torch.finfo(model.dtype).min)[:, None].to(model.device)
