"""Student family ``static``: the mean of token embeddings and a small network, no attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from distill_tasks.progress import Progress
from distill_tasks.settings import Spans, StudentSettings
from distill_tasks.students.folder import describe_model
from distill_tasks.students.lesson import Lesson, TeacherModel

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from distill_tasks.training import Curve

HIDDEN_UNITS = 128
BATCH_ROWS = 64


class StaticStudent(StudentSettings):
    """An embedding bag that starts from the teacher's token embeddings."""

    size_field: ClassVar[str] = "dimensions"

    family: Literal["static"] = Field("static", description="The family of students.")
    dimensions: Annotated[PositiveInt, Spans()] = Field(
        256, description="Width of a token's embedding, by PCA; a list spans the grid."
    )
    epochs: Annotated[PositiveInt, Spans()] = Field(
        10, description="Passes over train and transfer; a list spans the grid."
    )
    learning_rate: Annotated[PositiveFloat, Spans()] = Field(
        1e-2, description="Learning rate of Adam, decayed linearly; a list spans the grid."
    )


def train(config: StaticStudent, lesson: Lesson, folder: Path) -> list[Curve]:
    """Train the student into ``folder`` as numpy weights and return its curve."""
    import torch

    assert lesson.teacher is not None  # `check` refuses the grid otherwise
    tokenizer, embeddings = read_embeddings(lesson.teacher, config.dimensions)
    torch.manual_seed(lesson.seed)
    network = Network(
        bag=torch.nn.EmbeddingBag.from_pretrained(
            torch.from_numpy(embeddings), freeze=False, mode="mean", sparse=True
        ),
        hidden=torch.nn.Linear(embeddings.shape[1], HIDDEN_UNITS),
        output=torch.nn.Linear(HIDDEN_UNITS, len(lesson.classes)),
    )
    curve = _fit(network, _encode(tokenizer, lesson.rows.texts), lesson, config)
    network.save(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    describe_model(folder, "static", lesson, max_length=lesson.teacher.max_length)
    return curve


@dataclass(frozen=True)
class Network:
    """The student while it learns: mean of embeddings, one hidden layer, class scores."""

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


def read_embeddings(
    teacher: TeacherModel, dimensions: int
) -> tuple[Tokenizer, NDArray[np.float32]]:
    """Return the teacher's tokenizer and its token embeddings (tokens, dimensions) after PCA.

    The embeddings have unit variance in their first direction.
    """
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(teacher.model, revision=teacher.revision, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(teacher.model, revision=teacher.revision)
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.enable_truncation(teacher.max_length)
    backend.no_padding()
    full = model.get_input_embeddings().weight.detach().numpy()
    centred = full - full.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    chosen = directions[:, ::-1][:, : min(dimensions, full.shape[1])]
    return backend, (centred @ chosen / np.sqrt(variances[-1])).astype(np.float32)


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids or [0], np.int64) for encoding in encodings]


def _fit(
    network: Network, tokens: list[NDArray[np.int64]], lesson: Lesson, config: StaticStudent
) -> list[Curve]:
    """Train with a learning rate that falls linearly to zero."""
    import torch

    from distill_tasks.losses import check_finite, distillation_loss

    teacher = torch.from_numpy(lesson.soft_labels.logits)
    gold = torch.from_numpy(lesson.rows.gold)
    weights = lesson.class_weights
    class_weights = None if weights is None else torch.from_numpy(weights)
    optimizers = network.optimizers(config.learning_rate)
    batches_per_epoch = math.ceil(len(tokens) / BATCH_ROWS)
    steps = config.epochs * batches_per_epoch
    generator = np.random.default_rng(lesson.seed)
    progress, losses = Progress("training", "steps"), []
    progress.start(steps)
    for step in range(steps):
        if step % batches_per_epoch == 0:
            batches = np.array_split(generator.permutation(len(tokens)), batches_per_epoch)
        rows = batches[step % batches_per_epoch]
        logits = network.logits([tokens[row] for row in rows])
        loss = distillation_loss(
            logits, teacher[rows], gold[rows], lesson.temperature, lesson.alpha, class_weights
        )
        check_finite(loss, step + 1, config.learning_rate)
        loss.backward()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - step / steps)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        progress.reach(step + 1)
    progress.stop()
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
