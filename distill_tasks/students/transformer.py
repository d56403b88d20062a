"""What the families of transformer students share: the settings and course of their training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from distill_tasks.core.settings import Spans, StudentSettings
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.classifier import SequenceClassifier
from distill_tasks.training.objective import HIDDEN_TERMS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distill_tasks.training.hidden_states import OnlineTeacher
    from distill_tasks.training.trainer import Curve

TOKENS = "tokens"
"""The folder of the store with token ids, shared by the grid."""


class TransformerSettings(StudentSettings):
    """A student that is trained as a transformers model."""

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


def fit(
    config: TransformerSettings,
    learning_rate: float,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    make_model: Callable[[], PreTrainedModel],
    training_set: TrainingSet,
    folder: Path,
) -> list[Curve]:
    """Train a student into ``folder`` and return its curve.

    Of each text ``max_length`` tokens are read. Of the steps ``training set.share`` are taken.
    """
    from transformers import set_seed

    from distill_tasks.students.folder import describe_model
    from distill_tasks.training.first_token import read_first_token
    from distill_tasks.training.trainer import Recipe, Rows, train_classifier

    online_teacher = _place_teacher(config, training_set)

    def make() -> PreTrainedModel:
        set_seed(training_set.seed)
        model = make_model()
        if config.freeze_embeddings:
            getattr(model.base_model, "embeddings", model.get_input_embeddings()).requires_grad_(
                False
            )
        if online_teacher is None:  # else every token's last state is compared
            read_first_token(model)
        return model

    recipe = Recipe(
        epochs=config.epochs,
        learning_rate=learning_rate,
        batch_rows=config.batch_rows,
        accumulated_batches=config.accumulated_batches,
        patience_epochs=config.patience_epochs,
        max_length=max_length,
        seed=training_set.seed,
        objective=training_set.objective,
        problem=training_set.problem,
        class_weights=training_set.class_weights,
        share=training_set.share,
    )
    curve = train_classifier(
        make,
        tokenizer,
        Rows(training_set.rows.texts, training_set.rows.gold, training_set.soft_labels.logits),
        Rows(training_set.validation.texts, training_set.validation.gold),
        recipe,
        folder,
        training_set.work_dir and training_set.work_dir / TOKENS,
        online_teacher,
        training_set.progress,
    )
    describe_model(folder, "transformers", training_set, max_length=max_length)
    if training_set.share == 1:
        _check_served(folder, tokenizer, max_length, training_set)
    return curve


def _check_served(
    folder: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, training_set: TrainingSet
) -> None:
    """Raise PotstillError unless a student is served as it was trained, seen on validation rows."""
    from distill_tasks.students.folder import check_served
    from distill_tasks.training.tokens import encode, pick_rows

    texts = [training_set.validation.texts[row] for row in pick_rows(training_set.validation.texts)]
    trained = SequenceClassifier(folder, max_length, exact=True).logits(texts)
    check_served(folder, texts, trained, encode(tokenizer, texts, max_length)["input_ids"])


def _place_teacher(config: TransformerSettings, training_set: TrainingSet) -> OnlineTeacher | None:
    """Return the teacher in memory, where a term that this student can lower needs it."""
    from distill_tasks.training.hidden_states import load_online_teacher

    wanted = any(term in training_set.objective.terms for term in HIDDEN_TERMS)
    if training_set.teacher is None or not wanted or not config.reads_as_teacher:
        return None
    return load_online_teacher(training_set.teacher, training_set.objective)
