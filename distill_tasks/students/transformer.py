"""What the families of transformer students share: training settings and the training itself."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from distill_tasks.core.settings import Spans
from distill_tasks.serving.served_model import ABOUT
from distill_tasks.students.base import SHORT_STEPS, ShortTraining, Student, TrainingSet
from distill_tasks.students.folder import check_served, describe_model
from distill_tasks.training.classifier import SequenceClassifier
from distill_tasks.training.curve import Curve
from distill_tasks.training.objective import HIDDEN_TERMS
from distill_tasks.training.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distill_tasks.training.hidden_states import OnlineTeacher

TOKENS = "tokens"
"""The folder of the store with token ids, shared by the grid."""


@dataclass(frozen=True)
class Untrained:
    """A transformer before training, its tokenizer, and how many tokens of each text it reads."""

    make_model: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    max_length: int


class TransformerSettings(Student):
    """A student that is trained as a transformers model.

    A family says what a training begins with (`begin`), and its usual learning rate.
    """

    training_fields: ClassVar[frozenset[str]] = frozenset(
        {
            "epochs",
            "learning_rate",
            "batch_rows",
            "accumulated_batches",
            "patience_epochs",
            "freeze_embeddings",
        }
    )
    course_fields: ClassVar[frozenset[str]] = frozenset(
        {"epochs", "learning_rate", "patience_epochs"}
    )
    runtime: ClassVar[Literal["torch", "numpy"]] = "torch"
    in_rungs: ClassVar[bool] = True

    epochs: Annotated[PositiveInt, Field(le=10_000), Spans()] = Field(
        2, description="Passes over train and transfer; a list spans the grid."
    )
    learning_rate: Annotated[PositiveFloat | None, Spans()] = Field(
        None,
        description="Peak learning rate of AdamW, decayed linearly; when absent, 1e-3 divided by "
        "`layers`, and 3e-4 of `pretrained`; a list spans the grid.",
    )
    batch_rows: Annotated[PositiveInt, Field(le=10_000), Spans()] = Field(
        32, description="Rows whose gradients are found at once; a list spans the grid."
    )
    accumulated_batches: PositiveInt = Field(
        1,
        description="Batches whose gradients make one training step, in the memory of one.",
    )
    patience_epochs: PositiveInt | None = Field(
        None,
        description="Epochs without a better validation loss before training stops, the best one "
        "being kept; it never stops early when absent.",
    )
    freeze_embeddings: bool = Field(
        True, description="Leave the embeddings as the teacher or base model has them."
    )

    @property
    @abstractmethod
    def usual_learning_rate(self) -> float:
        """The peak learning rate if the user sets none."""

    @abstractmethod
    def begin(self, training_set: TrainingSet) -> Untrained:
        """Return the model and tokenizer that its training starts from."""

    @property
    def short_training(self) -> ShortTraining:
        """One epoch on the rows of a few steps."""
        once = self.model_copy(update={"epochs": 1})
        rows = SHORT_STEPS * self.batch_rows * self.accumulated_batches
        return ShortTraining(once, rows, self.epochs)

    def train(self, training_set: TrainingSet, folder: Path) -> list[Curve]:
        """Train the student into ``folder`` as a transformers model and return its curve.

        Training stops at ``training_set.share`` of all steps.
        """
        from distill_tasks.training.token_store import Tokens
        from distill_tasks.training.trainer import train_classifier

        untrained = self.begin(training_set)
        rows, validation = training_set.rows, training_set.validation
        answers = training_set.soft_labels
        kept = training_set.work_dir and training_set.work_dir / TOKENS
        tokens = Tokens(untrained.tokenizer, untrained.max_length, kept)
        curve = train_classifier(
            lambda: self._make_model(untrained),
            untrained.tokenizer,
            tokens.read_rows(rows.texts, rows.gold, answers.logits, answers.weights),
            tokens.read_rows(validation.texts, validation.gold),
            self._write_recipe(untrained.max_length, training_set),
            folder,
            self._place_teacher(training_set),
            training_set.progress,
        )
        describe_model(
            folder,
            "transformers",
            training_set.problem,
            training_set.classes,
            max_length=untrained.max_length,
        )
        if training_set.share == 1:
            _check_served(folder, untrained, training_set)
        return curve

    def open_stopped(self, folder: Path) -> SequenceClassifier:
        """Open a student whose training was stopped, in the precision that is fastest here.

        It answers several times faster than the served model.
        """
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return SequenceClassifier(folder, about["max_length"])

    def _make_model(self, untrained: Untrained) -> PreTrainedModel:
        model = untrained.make_model()
        if self.freeze_embeddings:
            inputs = model.get_input_embeddings()
            getattr(model.base_model, "embeddings", inputs).requires_grad_(False)
        return model

    def _write_recipe(self, max_length: int, training_set: TrainingSet) -> Recipe:
        return Recipe.of(
            self,
            learning_rate=self.learning_rate or self.usual_learning_rate,
            max_length=max_length,
            seed=training_set.seed,
            problem=training_set.problem,
            class_weights=training_set.class_weights,
            objective=training_set.objective,
            share=training_set.share,
        )

    def _place_teacher(self, training_set: TrainingSet) -> OnlineTeacher | None:
        """Return the teacher in memory if a loss term of this student needs it, else None."""
        from distill_tasks.training.hidden_states import load_online_teacher

        wanted = any(term in training_set.objective.terms for term in HIDDEN_TERMS)
        if training_set.teacher is None or not wanted or not self.reads_as_teacher:
            return None
        return load_online_teacher(training_set.teacher, training_set.objective)


def _check_served(folder: Path, untrained: Untrained, training_set: TrainingSet) -> None:
    """Raise PotstillError unless the served student answers validation rows as in training."""
    from distill_tasks.training.tokens import encode, pick_rows

    texts = [training_set.validation.texts[row] for row in pick_rows(training_set.validation.texts)]
    trained = SequenceClassifier(folder, untrained.max_length, exact=True).logits(texts)
    read = encode(untrained.tokenizer, texts, untrained.max_length)["input_ids"]
    check_served(folder, texts, trained, read)
