"""The vectors of a pretrained encoder's tokens, from which static students start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.core.digests import digest
from distill_tasks.core.store import Store
from distill_tasks.serving.served_text import bound
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.device import choose_device

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

POOLED_TOKENS = 1024
"""Number of tokens in one batch through the teacher."""
SIF_A = 1e-3
"""The constant a of `weigh_tokens`, as in the paper."""

VOCABULARIES, VECTORS = "token_vectors", "vectors.npy"
"""The folder of the store with the results of `pool_vocabulary`, shared by the grid."""
VECTORS_VERSION = 1
"""Raised, together with that of all students, when a change changes `pool_vocabulary`."""


def read_tokenizer(teacher: Checkpoint) -> Tokenizer:
    """Return the teacher's tokenizer, which cuts texts to its length and does not pad."""
    tokenizer = teacher.open_tokenizer()
    backend: Tokenizer = tokenizer.backend_tokenizer
    bound(backend, teacher.max_length, tokenizer.truncation_side)
    return backend


def read_input_embeddings(teacher: Checkpoint) -> NDArray[np.float32]:
    """Return the vectors (tokens, width) that the teacher's first layer reads."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(
        teacher.model, revision=teacher.revision, trust_remote_code=False, dtype="float32"
    )
    vectors: NDArray[np.float32] = model.get_input_embeddings().weight.detach().numpy()
    return vectors


def pool_vocabulary(teacher: Checkpoint) -> NDArray[np.float32]:
    """Return the teacher's representation of each token on its own (tokens, width).

    The teacher reads the token between its usual special tokens; the vector is the mean of the last
    layer over all of them.
    Source: Tulkens and van Dongen 2024, "Model2Vec: Fast State-of-the-Art Static Embeddings".
    """
    import torch
    from transformers import AutoModel

    device = choose_device()
    model = AutoModel.from_pretrained(
        teacher.model,
        revision=teacher.revision,
        dtype=torch.bfloat16 if device.bf16 else torch.float32,
        trust_remote_code=False,
    )
    model.eval().to(device.kind)
    before, after = (torch.tensor(ids, dtype=torch.long) for ids in _frame(read_tokenizer(teacher)))
    vocabulary = torch.arange(len(model.get_input_embeddings().weight))
    vectors = []
    with torch.inference_mode():
        for tokens in vocabulary.split(POOLED_TOKENS):
            rows = len(tokens)
            framed = (before.expand(rows, -1), tokens[:, None], after.expand(rows, -1))
            ids = torch.cat(framed, dim=1).to(device.kind)
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            vectors.append(states.float().mean(dim=1).cpu().numpy())
    return np.concatenate(vectors)


def keep_vocabulary(teacher: Checkpoint, folder: Path) -> NDArray[np.float32]:
    """Return `pool_vocabulary` of a teacher, read from the folder if it was made before."""
    store, kind = Store(folder.parent), folder.name
    key = digest(VECTORS_VERSION, teacher.digest())
    if store.manifest(kind, key) is None:
        made = pool_vocabulary(teacher)
        with store.build(kind, key, {"tokens": len(made)}) as draft:
            np.save(draft / VECTORS, made)
    vectors: NDArray[np.float32] = np.load(store.folder(kind, key) / VECTORS, allow_pickle=False)
    return vectors


def reduce_dimensions(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Return vectors (tokens, width) projected on their principal directions (tokens, dimensions).

    The first direction is scaled to unit variance; there are at most ``width`` directions.
    """
    centred = vectors - vectors.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    chosen = directions[:, ::-1][:, :dimensions]
    reduced: NDArray[np.float32] = (centred @ chosen / np.sqrt(variances[-1])).astype(np.float32)
    return reduced


def weigh_tokens(tokens: Sequence[NDArray[np.int64]], vocabulary: int) -> NDArray[np.float32]:
    """Return weights (vocabulary,) proportional to a/(a + p), where p is a token's share of texts.

    ``tokens`` are the token numbers of each text. A token that never occurs counts as occurring
    once. The weights are scaled to a mean of 1 over all tokens of the texts, since frequent tokens
    would start near zero and learn slowly.
    Source: Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings".
    """
    counts = np.bincount(np.concatenate(tokens), minlength=vocabulary)
    shares = np.maximum(counts, 1) / counts.sum()
    raw = SIF_A / (SIF_A + shares)
    weights: NDArray[np.float32] = (raw * counts.sum() / (raw @ counts)).astype(np.float32)
    return weights


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after a text."""
    encoding = tokenizer.encode("a")
    own = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    first, last = (own[0], own[-1]) if own else (len(encoding), len(encoding))
    return encoding.ids[:first], encoding.ids[last + 1 :]
