"""Student family ``static``: the mean of token embeddings and a small network, no attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from distill_tasks.core.digests import digest
from distill_tasks.core.progress import Training
from distill_tasks.core.settings import Spans
from distill_tasks.core.store import Store
from distill_tasks.serving.served_text import bound, read_ids
from distill_tasks.students.base import ShortTraining, Student, TrainingSet
from distill_tasks.students.folder import check_served, describe_model
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.curve import Curve
from distill_tasks.training.device import choose_device

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

HIDDEN_UNITS = 128
BATCH_ROWS = 32
"""Default batch size: as good as 64 with thousands of rows, better with hundreds
(docs/decisions.md)."""
POOLED_TOKENS = 1024
"""Number of tokens in one batch through the teacher."""
SIF_A = 1e-3
"""The constant a of `weigh_tokens`, as in the paper."""

VOCABULARIES, VECTORS = "token_vectors", "vectors.npy"
"""The folder of the store with the results of `pool_vocabulary`, shared by the grid."""
VECTORS_VERSION = 1
"""Raised, together with that of all students, when a change changes `pool_vocabulary`."""


class StaticStudent(Student):
    """An embedding bag that starts from the teacher's token embeddings."""

    size_field: ClassVar[str] = "dimensions"
    training_fields: ClassVar[frozenset[str]] = frozenset({"epochs", "learning_rate"})
    course_fields: ClassVar[frozenset[str]] = training_fields
    needs_teacher_weights: ClassVar[bool] = True

    family: Literal["static"] = Field("static", description="The family of students.")
    dimensions: Annotated[PositiveInt, Field(le=10_000), Spans()] = Field(
        256, description="Width of a token's embedding, by PCA; a list spans the grid."
    )
    epochs: Annotated[PositiveInt, Field(le=10_000), Spans()] = Field(
        8, description="Passes over train and transfer; a list spans the grid."
    )
    learning_rate: Annotated[PositiveFloat, Spans()] = Field(
        1e-2, description="Learning rate of Adam, decayed linearly; a list spans the grid."
    )
    start: Literal["tokens", "teacher"] = Field(
        "teacher",
        description="Embeddings to start from: `tokens` takes those that the teacher's first layer "
        "reads, `teacher` what its last layer makes of each token alone.",
    )
    sif: bool = Field(
        True,
        description="Start with frequent tokens scaled down (smooth inverse frequency), so that "
        "rare ones have their say.",
    )

    @property
    def short_training(self) -> ShortTraining:
        """One epoch on some rows."""
        once = self.model_copy(update={"epochs": 1})
        return replace(super().short_training, student=once, times=self.epochs)

    def train(self, training_set: TrainingSet, folder: Path) -> list[Curve]:
        """Train the student into ``folder`` as numpy weights and return its curve."""
        import torch

        assert training_set.teacher is not None  # `check` refuses the grid otherwise
        tokenizer = read_tokenizer(training_set.teacher)
        tokens = _encode(tokenizer, training_set.rows.texts)
        embeddings = make_embeddings(self, training_set.teacher, tokens, training_set.work_dir)
        torch.manual_seed(training_set.seed)
        network = Network(
            bag=torch.nn.EmbeddingBag.from_pretrained(
                torch.from_numpy(embeddings), freeze=False, mode="mean", sparse=True
            ),
            hidden=torch.nn.Linear(embeddings.shape[1], HIDDEN_UNITS),
            output=torch.nn.Linear(HIDDEN_UNITS, len(training_set.classes)),
        )
        curve = _fit(network, tokens, training_set, self)
        network.save(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        describe_model(
            folder,
            "static",
            training_set.problem,
            training_set.classes,
            max_length=training_set.teacher.max_length,
        )
        _check_served(folder, tokenizer, network, training_set)
        return curve


def _check_served(
    folder: Path, tokenizer: Tokenizer, network: Network, training_set: TrainingSet
) -> None:
    """Raise PotstillError unless the served student answers validation rows as in training."""
    import torch

    from distill_tasks.training.tokens import pick_rows

    texts = [training_set.validation.texts[row] for row in pick_rows(training_set.validation.texts)]
    tokens = _encode(tokenizer, texts)
    with torch.inference_mode():
        trained = network.logits(tokens).numpy()
    check_served(folder, texts, trained, [ids.tolist() for ids in tokens])


@dataclass(frozen=True)
class Network:
    """The student in training: mean of embeddings, one hidden layer, class scores."""

    bag: torch.nn.EmbeddingBag
    hidden: torch.nn.Linear
    output: torch.nn.Linear

    def logits(self, tokens: Sequence[NDArray[np.int64]]) -> torch.Tensor:
        """Return logits (rows, classes) of rows of token numbers."""
        import torch

        offsets = np.cumsum([0, *(len(row) for row in tokens[:-1])])
        pooled = self.bag(torch.from_numpy(np.concatenate(tokens)), torch.from_numpy(offsets))
        scores: torch.Tensor = self.output(torch.relu(self.hidden(pooled)))
        return scores

    def optimizers(self, learning_rate: float) -> list[torch.optim.Optimizer]:
        """Return Adam for the layers, and its sparse form for the embeddings."""
        import torch

        layers = [*self.hidden.parameters(), *self.output.parameters()]
        return [
            torch.optim.SparseAdam(list(self.bag.parameters()), lr=learning_rate),
            torch.optim.Adam(layers, lr=learning_rate),
        ]

    def save(self, folder: Path) -> None:
        """Write the weights as numpy arrays, the embeddings in half precision."""
        np.savez(
            folder / "weights.npz",
            embeddings=self.bag.weight.detach().numpy().astype(np.float16),
            hidden=self.hidden.weight.detach().numpy().T.copy(),
            hidden_bias=self.hidden.bias.detach().numpy(),
            output=self.output.weight.detach().numpy().T.copy(),
            output_bias=self.output.bias.detach().numpy(),
        )


def read_tokenizer(teacher: Checkpoint) -> Tokenizer:
    """Return the teacher's tokenizer, which cuts texts to its length and does not pad."""
    tokenizer = teacher.open_tokenizer()
    backend: Tokenizer = tokenizer.backend_tokenizer
    bound(backend, teacher.max_length, tokenizer.truncation_side)
    return backend


def make_embeddings(
    config: StaticStudent,
    teacher: Checkpoint,
    tokens: Sequence[NDArray[np.int64]],
    work_dir: Path | None,
) -> NDArray[np.float32]:
    """Return the embeddings (tokens, dimensions) from which training starts.

    ``tokens`` are the token numbers of each text, from which their frequencies are counted. The
    result of `pool_vocabulary` is kept in ``work_dir``, unless that is None.
    """
    if config.start == "tokens":
        vectors = read_input_embeddings(teacher)
    elif work_dir is None:
        vectors = pool_vocabulary(teacher)
    else:
        vectors = keep_vocabulary(teacher, work_dir / VOCABULARIES)
    embeddings = reduce_dimensions(vectors, config.dimensions)
    if config.sif:
        embeddings *= weigh_tokens(tokens, len(embeddings))[:, None]
    return embeddings


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


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    found = read_ids(tokenizer, texts, special_tokens=False)
    return [np.array(ids or [0], np.int64) for ids in found]


def _fit(
    network: Network,
    tokens: list[NDArray[np.int64]],
    training_set: TrainingSet,
    config: StaticStudent,
) -> list[Curve]:
    """Train with a learning rate that falls linearly to zero."""
    import torch

    from distill_tasks.training.losses import check_finite, distillation_loss

    teacher = torch.from_numpy(training_set.soft_labels.logits)
    gold = torch.from_numpy(training_set.rows.gold)
    weights = training_set.class_weights
    class_weights = None if weights is None else torch.from_numpy(weights)
    optimizers = network.optimizers(config.learning_rate)
    batches_per_epoch = math.ceil(len(tokens) / BATCH_ROWS)
    steps = config.epochs * batches_per_epoch
    generator = np.random.default_rng(training_set.seed)
    training, losses = Training(training_set.progress, steps, BATCH_ROWS), []
    for step in range(steps):
        if step % batches_per_epoch == 0:
            batches = np.array_split(generator.permutation(len(tokens)), batches_per_epoch)
        rows = batches[step % batches_per_epoch]
        logits = network.logits([tokens[row] for row in rows])
        loss = distillation_loss(
            logits, teacher[rows], gold[rows], training_set.objective, class_weights
        )
        check_finite(loss, step + 1, config.learning_rate)
        loss.backward()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - step / steps)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        training.take(losses[-1], ends_epoch=(step + 1) % batches_per_epoch == 0)
    return _curve(losses, batches_per_epoch)


def _curve(losses: list[float], batches_per_epoch: int) -> list[Curve]:
    """Return the mean loss of each epoch."""
    return [
        {
            "epoch": end / batches_per_epoch,
            "step": end,
            "train/loss": float(np.mean(losses[end - batches_per_epoch : end])),
        }
        for end in range(batches_per_epoch, len(losses) + 1, batches_per_epoch)
    ]
