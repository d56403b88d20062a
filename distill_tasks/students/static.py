"""Student family ``static``: the mean of token embeddings and a small network, no attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    family: Literal["static"] = "static"
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
    bag = torch.nn.EmbeddingBag.from_pretrained(
        torch.from_numpy(embeddings), freeze=False, mode="mean", sparse=True
    )
    head = torch.nn.Sequential(
        torch.nn.Linear(embeddings.shape[1], HIDDEN_UNITS),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN_UNITS, len(lesson.classes)),
    )
    curve = _fit(bag, head, _encode(tokenizer, lesson.rows.texts), lesson, config)
    _save(bag, head, tokenizer, folder)
    describe_model(folder, "static", lesson.classes, max_length=lesson.teacher.max_length)
    return curve


def read_embeddings(
    teacher: TeacherModel, dimensions: int
) -> tuple[Tokenizer, NDArray[np.float32]]:
    """Return the teacher's tokenizer and its token embeddings (tokens, dimensions) after PCA.

    The embeddings have unit variance in their first direction.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(
        teacher.model, revision=teacher.revision, dtype="float32"
    )
    tokenizer = AutoTokenizer.from_pretrained(teacher.model, revision=teacher.revision)
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.enable_truncation(teacher.max_length)
    full = model.get_input_embeddings().weight.detach().numpy()
    centred = full - full.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    chosen = directions[:, ::-1][:, : min(dimensions, full.shape[1])]
    return backend, (centred @ chosen / np.sqrt(variances[-1])).astype(np.float32)


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids or [0], np.int64) for encoding in encodings]


def _fit(
    bag: torch.nn.EmbeddingBag,
    head: torch.nn.Sequential,
    tokens: list[NDArray[np.int64]],
    lesson: Lesson,
    config: StaticStudent,
) -> list[Curve]:
    import torch

    from distill_tasks.losses import distillation_loss

    teacher = torch.from_numpy(lesson.soft_labels.logits)
    gold = torch.from_numpy(lesson.rows.gold)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SparseAdam(bag.parameters(), lr=config.learning_rate),
        torch.optim.Adam(head.parameters(), lr=config.learning_rate),
    ]
    steps = config.epochs * -(-len(tokens) // BATCH_ROWS)
    generator = np.random.default_rng(lesson.seed)
    progress, curve, done = Progress("training", "steps"), [], 0
    progress.start(steps)
    for epoch in range(1, config.epochs + 1):
        losses = []
        for rows in _batches(generator.permutation(len(tokens))):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - done / steps)
                optimizer.zero_grad()
            lengths = [len(tokens[row]) for row in rows]
            offsets = torch.tensor([0, *np.cumsum(lengths)[:-1]])
            pooled = bag(torch.from_numpy(np.concatenate([tokens[row] for row in rows])), offsets)
            loss = distillation_loss(
                head(pooled), teacher[rows], gold[rows], lesson.temperature, lesson.alpha
            )
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            losses.append(loss.item())
            done += 1
            progress.reach(done)
        curve.append({"epoch": epoch, "step": done, "train/loss": float(np.mean(losses))})
    progress.stop()
    return curve


def _batches(order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order), BATCH_ROWS):
        yield order[start : start + BATCH_ROWS]


def _save(
    bag: torch.nn.EmbeddingBag, head: torch.nn.Sequential, tokenizer: Tokenizer, folder: Path
) -> None:
    first, _, last = head
    np.savez(
        folder / "weights.npz",
        embeddings=bag.weight.detach().numpy().astype(np.float16),
        hidden=first.weight.detach().numpy().T.copy(),
        hidden_bias=first.bias.detach().numpy(),
        output=last.weight.detach().numpy().T.copy(),
        output_bias=last.bias.detach().numpy(),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
