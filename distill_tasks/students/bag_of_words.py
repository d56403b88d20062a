"""Student family ``bag_of_words``: TF-IDF of word and character n-grams, one layer or two."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field, PositiveInt, field_validator

from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.core.progress import Training
from distill_tasks.core.settings import Spans
from distill_tasks.serving.served_text import SHORTEST
from distill_tasks.students.base import Student, TrainingSet, find_loss
from distill_tasks.students.folder import check_served, describe_model
from distill_tasks.students.terms import Terms, count_terms, weigh_terms
from distill_tasks.training.curve import Curve
from distill_tasks.training.device import one_thread
from distill_tasks.training.random_weights import seeded

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Weights: TypeAlias = dict[str, NDArray[np.float32]]

WEIGHT_DECAY = 1e-6
"""Ridge penalty on the linear layer, per weight."""
ITERATIONS = 50
"""L-BFGS stops after so many steps: more overfit the transfer rows (docs/decisions.md)."""
PAIRS_GB, FEWEST_PAIRS = 2.0, 5
"""Memory for the history of L-BFGS, which consists of pairs of arrays of all weights, and the
least number of pairs."""
LAYER_COPIES, ROW_COPIES, KEPT_COPIES = 8, 20, 4
"""Arrays held at once beside the pairs: of all weights in float32; (rows, classes) in float64 for
the rows whose loss is computed at once, as measured (docs/decisions.md); and in float32 for all."""
LOSS_ROWS = 65_536
"""Rows whose loss is computed at once; up to so many rows are one piece."""
EPOCHS, BATCH_ROWS, LEARNING_RATE = 10, 64, 1e-2
"""Learning rate of Adam, which trains students with a hidden layer."""
SPREAD = 0.1
"""Standard deviation of the hidden layer's initial weights."""


class BagOfWordsStudent(Student):
    """TF-IDF features and one layer, or two, that learn the teacher's soft labels."""

    size_field: ClassVar[str] = "max_features"

    family: Literal["bag_of_words"] = Field("bag_of_words", description="The family of students.")
    max_features: Annotated[PositiveInt, Field(le=10_000_000), Spans()] = Field(
        50_000,
        description="Most frequent terms kept, of words and of characters each, or columns that "
        "they are hashed into; a list spans the grid.",
    )
    ngrams: Annotated[PositiveInt, Field(le=100), Spans()] = Field(
        2, description="Longest run of words that is one term; a list spans the grid."
    )
    characters: Annotated[int, Field(ge=0, le=100), Spans()] = Field(
        0,
        description="Longest run of characters that is one term, inside a word and the spaces "
        "around it; 0 takes words alone. A list spans the grid.",
    )
    hashed: Annotated[bool, Spans()] = Field(
        False,
        description="Hash terms into columns and keep no vocabulary, which makes the served "
        "folder smaller; a list spans the grid.",
    )
    hidden_units: Annotated[int, Field(ge=0), Spans()] = Field(
        0,
        description="Width of the hidden layer between terms and classes; 0 has none. A list "
        "spans the grid.",
    )

    @field_validator("characters")
    @classmethod
    def _check_characters(cls, characters: int) -> int:
        if 0 < characters < SHORTEST:
            raise ValueError(f"the shortest run has {SHORTEST} characters, and 0 takes words alone")
        return characters

    @property
    def in_steps(self) -> bool:
        """Whether training takes random steps: without a hidden layer it sees all rows at once."""
        return self.hidden_units > 0

    @property
    def trains_in_seconds(self) -> bool:
        """Whether it may be trained many times over to try settings: only if it is linear."""
        return not self.hidden_units

    @property
    def grows_with_words(self) -> bool:
        """Whether more distinct words make it larger: only if it keeps a vocabulary."""
        return not self.hashed

    def check_memory(self, texts: Sequence[str], classes: int, most_gb: float) -> None:
        """Raise InputError if training on some texts takes more memory than there is."""
        terms = self.max_features * (2 if self.characters else 1)
        if self.estimate_memory_gb(len(texts), terms, classes) <= most_gb:
            return
        if not self.hashed:  # there may be fewer
            found = count_terms(texts, self.ngrams, self.characters)
            terms = sum(min(len(names), self.max_features) for _, names in found)
        needed = self.estimate_memory_gb(len(texts), terms, classes)
        if needed > most_gb:
            size = "hidden_units" if self.hidden_units else "max_features"
            raise InputError(
                f"Student {self.name} takes about {needed:,.1f} GB of memory to learn {classes:,} "
                f"classes by {terms:,} terms from {len(texts):,} rows; here are {most_gb:,.1f}. "
                f"Lower {size}, or give fewer rows."
            )

    def estimate_memory_gb(self, rows: int, terms: int, classes: int) -> float:
        """Return an estimate of the peak memory of training, without the rows themselves."""
        if self.hidden_units:
            # Its batches are small; Adam has two arrays of its own.
            return 4 * LAYER_COPIES * terms * self.hidden_units / 1e9
        weights = terms * classes
        copies = LAYER_COPIES + 2 * count_pairs(weights)
        at_once = 8 * ROW_COPIES * min(rows, LOSS_ROWS) * classes
        return (4 * copies * weights + at_once + 4 * KEPT_COPIES * rows * classes) / 1e9

    def train(self, training_set: TrainingSet, folder: Path) -> list[Curve]:
        """Train the student into ``folder`` as numpy weights and return its training curve.

        The curve has a point for each epoch, or a single one if every step sees all rows.
        """
        from scipy.sparse import hstack

        from distill_tasks.training.tokens import pick_rows

        texts = training_set.rows.texts
        kinds = self._read_terms(texts)
        features = hstack([kind.features for kind in kinds], format="csr")
        with one_thread():
            if self.hidden_units:
                weights, curve = fit_network(features, self.hidden_units, training_set)
            else:
                weights, curve = fit_linear(features, training_set)
        self._save(folder, kinds, weights, training_set)
        rows = pick_rows(texts)
        check_served(folder, [texts[row] for row in rows], _answer(features[rows], weights))
        return curve

    def _read_terms(self, texts: Sequence[str]) -> list[Terms]:
        """Return the terms of texts, word n-grams first."""
        limit = None if self.hashed else self.max_features
        found = count_terms(texts, self.ngrams, self.characters, limit)
        if not any(names for _, names in found):
            raise PotstillError("no text has a word of two characters or more; set characters to 3")
        return [weigh_terms(*one, self.max_features, self.hashed) for one in found]

    def _save(
        self, folder: Path, kinds: list[Terms], weights: Weights, training_set: TrainingSet
    ) -> None:
        if not self.hashed:
            weights = weights | {"idf": np.concatenate([kind.idf for kind in kinds])}
            names = json.dumps([name for kind in kinds for name in kind.names], ensure_ascii=False)
            (folder / "vocabulary.json").write_text(names, encoding="utf-8")
        np.savez(folder / "weights.npz", allow_pickle=False, **weights)
        describe_model(
            folder,
            "bag_of_words",
            training_set.problem,
            training_set.classes,
            words=kinds[0].features.shape[1],
            **self.model_dump(include={"ngrams", "characters", "hashed"}),
        )


def _answer(features: csr_matrix, weights: Weights) -> NDArray[np.float32]:
    """Return logits (rows, classes) of features (rows, terms) by the trained weights."""
    if "hidden" in weights:
        features = np.maximum(features @ weights["hidden"] + weights["hidden_bias"], 0)
    logits: NDArray[np.float32] = features @ weights["output"] + weights["output_bias"]
    return logits


def count_pairs(weights: int) -> int:
    """Return the length of the history of L-BFGS: all steps, fewer for millions of weights."""
    return min(ITERATIONS, max(FEWEST_PAIRS, int(PAIRS_GB * 1e9 / (8 * weights))))


def fit_linear(features: csr_matrix, training_set: TrainingSet) -> tuple[Weights, list[Curve]]:
    """Minimise the distillation loss of a linear layer, which is convex, by L-BFGS stopped early.

    ``features`` is (rows, terms); the weights are (terms, classes), the bias (classes,).
    Source: Liu and Nocedal 1989, "On the Limited Memory BFGS Method for Large Scale Optimization".
    """
    import torch

    weights = torch.zeros(features.shape[1] + 1, len(training_set.classes), requires_grad=True)
    values, by_term = weights.detach().numpy(), features.T.tocsr()

    def loss_and_gradient() -> float:
        loss, slope = loss_and_slope(features @ values[:-1] + values[-1], training_set)
        decay = WEIGHT_DECAY * values
        decay[-1] = 0
        gradient = np.vstack([by_term @ slope, slope.sum(axis=0)]) + decay
        weights.grad = torch.from_numpy(gradient)
        return loss + 0.5 * float((decay * values).sum())

    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=ITERATIONS,
        history_size=count_pairs(weights.numel()),
        line_search_fn="strong_wolfe",
    )
    optimizer.step(loss_and_gradient)
    curve: list[Curve] = [{"epoch": 1, "step": 1, "train/loss": loss_and_gradient()}]
    return {"output": values[:-1], "output_bias": values[-1]}, curve


def loss_and_slope(
    scores: NDArray[np.float32], training_set: TrainingSet
) -> tuple[float, NDArray[np.float32]]:
    """Return the distillation loss of logits (rows, classes) and its derivative by the logits.

    It is computed in float64, and in pieces of rows, which bounds its memory; a term that compares
    rows with each other takes all of them at once.
    """
    import torch

    total = len(scores)
    piece = total if "dist" in training_set.objective.terms else LOSS_ROWS
    loss, slope = 0.0, np.empty_like(scores)
    for begin in range(0, total, piece):
        rows = slice(begin, begin + piece)
        student = torch.from_numpy(scores[rows].astype(np.float64)).requires_grad_()
        share = len(student) / total
        mean = find_loss(student, training_set, rows)
        (steep,) = torch.autograd.grad(mean, student)
        loss += share * float(mean.detach())
        slope[rows] = share * steep.numpy()
    return loss, slope


@dataclass(frozen=True)
class Network:
    """The student with a hidden layer in training; its first layer is an embedding bag of terms."""

    hidden: torch.nn.EmbeddingBag
    hidden_bias: torch.nn.Parameter
    output: torch.nn.Linear

    def logits(self, features: csr_matrix) -> torch.Tensor:
        """Return logits (rows, classes) of features (rows, terms)."""
        import torch

        terms = torch.from_numpy(features.indices.astype(np.int64))
        starts = torch.from_numpy(features.indptr[:-1].astype(np.int64))
        weights = torch.from_numpy(features.data)
        summed = self.hidden(terms, starts, per_sample_weights=weights)
        scores: torch.Tensor = self.output(torch.relu(summed + self.hidden_bias))
        return scores

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return Adam's sparse form for the terms, and Adam for what every text has."""
        import torch

        dense = [self.hidden_bias, *self.output.parameters()]
        return [
            torch.optim.SparseAdam([self.hidden.weight], lr=LEARNING_RATE),
            torch.optim.Adam(dense, lr=LEARNING_RATE),
        ]

    def weights(self) -> Weights:
        """Return what is served: weights (inputs, outputs) and biases (outputs,) of both layers."""
        found = {
            "hidden": self.hidden.weight,
            "hidden_bias": self.hidden_bias,
            "output": self.output.weight.T,
            "output_bias": self.output.bias,
        }
        return {name: weight.detach().contiguous().numpy() for name, weight in found.items()}


def fit_network(
    features: csr_matrix, hidden_units: int, training_set: TrainingSet
) -> tuple[Weights, list[Curve]]:
    """Minimise the distillation loss of two layers by Adam, its learning rate falling to zero.

    ``features`` is (rows, terms).
    """
    import torch

    with seeded(training_set.seed):
        start = SPREAD * torch.randn(features.shape[1], hidden_units)
        network = Network(
            torch.nn.EmbeddingBag.from_pretrained(start, freeze=False, mode="sum", sparse=True),
            torch.nn.Parameter(torch.zeros(hidden_units)),
            torch.nn.Linear(hidden_units, len(training_set.classes)),
        )
    curve = _learn(network, features, training_set)
    return network.weights(), curve


def _learn(network: Network, features: csr_matrix, training_set: TrainingSet) -> list[Curve]:
    """Train in batches of rows, each row once in an epoch; return the mean loss of each epoch."""
    import torch

    batches = math.ceil(features.shape[0] / BATCH_ROWS)
    generator, optimizers = np.random.default_rng(training_set.seed), network.optimizers()
    schedules = [
        torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, EPOCHS * batches)
        for optimizer in optimizers
    ]
    training, curve = Training(training_set.progress, EPOCHS * batches, BATCH_ROWS), []
    for epoch in range(1, EPOCHS + 1):
        losses: list[float] = []
        for rows in np.array_split(generator.permutation(features.shape[0]), batches):
            loss = find_loss(network.logits(features[rows]), training_set, rows)
            loss.backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            losses.append(loss.item())
            training.take(losses[-1], ends_epoch=len(losses) == batches)
        mean = float(np.mean(losses))
        curve.append({"epoch": epoch, "step": epoch * batches, "train/loss": mean})
    return curve
