"""Student family ``static``: the mean of token embeddings and a small network, no attention."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from distill_tasks.core.progress import Training
from distill_tasks.core.settings import Spans
from distill_tasks.serving.served_text import read_ids
from distill_tasks.students.base import (
    DEFAULT_MAX_LENGTH,
    ShortTraining,
    Student,
    TrainingSet,
    find_loss,
    name_model,
)
from distill_tasks.students.folder import check_served, describe_model
from distill_tasks.students.pretrained import check_weights
from distill_tasks.students.token_vectors import (
    VOCABULARIES,
    keep_vocabulary,
    pool_vocabulary,
    read_input_embeddings,
    read_tokenizer,
    reduce_dimensions,
    weigh_tokens,
)
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.curve import Curve
from distill_tasks.training.device import one_thread
from distill_tasks.training.random_weights import seeded

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

HIDDEN_UNITS = 128
BATCH_ROWS = 32
"""Default batch size: as good as 64 with thousands of rows, better with hundreds
(docs/decisions.md)."""


class StaticStudent(Student):
    """An embedding bag that starts from the token embeddings of the teacher or another encoder."""

    size_field: ClassVar[str] = "dimensions"
    training_fields: ClassVar[frozenset[str]] = frozenset({"epochs", "learning_rate"})
    course_fields: ClassVar[frozenset[str]] = training_fields

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

    model: Annotated[str | None, Field(min_length=1)] = Field(
        None,
        description="Local folder or hub id of an encoder whose embeddings it starts from, where "
        "the teacher has no weights here; the teacher's when absent.",
    )
    revision: str | None = Field(None, description="Commit of that encoder, if it is a hub id.")

    @property
    def name(self) -> str:
        """A name unique within a grid, with the last part of its encoder's path."""
        if self.model is None:
            return super().name
        short = {"model": name_model(self.model), "revision": self.revision and self.revision[:8]}
        return super(StaticStudent, self.model_copy(update=short)).name

    @property
    def needs_teacher_weights(self) -> bool:
        """Whether it starts from the teacher's own embeddings."""
        return self.model is None

    def own_start(self, teacher: Checkpoint | None) -> Checkpoint | None:
        """Return its encoder, read as far as the teacher reads; None if it has none."""
        if self.model is None:
            return None
        length = teacher.max_length if teacher else DEFAULT_MAX_LENGTH
        return Checkpoint(self.model, self.revision, length)

    def check_own_start(self, teacher: Checkpoint | None) -> None:
        """Raise InputError unless its encoder can be read."""
        start = self.own_start(teacher)
        if start is not None:
            start.read_config()
            check_weights(start)
            start.open_tokenizer()

    def _digest_without(self, fields: Collection[str]) -> str:
        """Return its digest as before it could name an encoder, where it names none."""
        absent = [name for name in ("model", "revision") if getattr(self, name) is None]
        return super()._digest_without({*fields, *absent})

    @property
    def short_training(self) -> ShortTraining:
        """One epoch on some rows."""
        once = self.model_copy(update={"epochs": 1})
        return replace(super().short_training, student=once, times=self.epochs)

    def train(self, training_set: TrainingSet, folder: Path) -> list[Curve]:
        """Train the student into ``folder`` as numpy weights and return its curve."""
        import torch

        start = self.own_start(training_set.teacher) or training_set.teacher
        assert start is not None  # `check` refuses the grid otherwise
        tokenizer = read_tokenizer(start)
        tokens = _encode(tokenizer, training_set.rows.texts)
        embeddings = make_embeddings(self, start, tokens, training_set.work_dir)
        bag = torch.nn.EmbeddingBag.from_pretrained(
            torch.from_numpy(embeddings), freeze=False, mode="mean", sparse=True
        )
        with seeded(training_set.seed):
            hidden = torch.nn.Linear(embeddings.shape[1], HIDDEN_UNITS)
            output = torch.nn.Linear(HIDDEN_UNITS, len(training_set.classes))
        network = Network(bag, hidden, output)
        with one_thread():
            curve = _fit(network, tokens, training_set, self)
        network.save(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        describe_model(
            folder,
            "static",
            training_set.problem,
            training_set.classes,
            max_length=start.max_length,
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
    from distill_tasks.training.losses import check_finite

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
        loss = find_loss(logits, training_set, rows)
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
