"""What the families of transformer students share: the settings and course of their training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from distill_tasks.core.settings import Spans, StudentSettings
from distill_tasks.students.base import Lesson
from distill_tasks.training.classifier import SequenceClassifier
from distill_tasks.training.objective import INSIDE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distill_tasks.training.hidden_states import TeacherBeside
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
    lesson: Lesson,
    folder: Path,
) -> list[Curve]:
    """Train a student into ``folder`` and return its curve.

    Of each text ``max_length`` tokens are read. Of the steps ``lesson.share`` are taken.
    """
    from transformers import set_seed

    from distill_tasks.students.folder import describe_model
    from distill_tasks.training.first_token import read_first_token
    from distill_tasks.training.trainer import Recipe, Rows, train_classifier

    beside = _place_teacher(config, lesson)

    def make() -> PreTrainedModel:
        set_seed(lesson.seed)
        model = make_model()
        if config.freeze_embeddings:
            getattr(model.base_model, "embeddings", model.get_input_embeddings()).requires_grad_(
                False
            )
        if beside is None:  # else every token's last state is compared
            read_first_token(model)
        return model

    recipe = Recipe(
        epochs=config.epochs,
        learning_rate=learning_rate,
        batch_rows=config.batch_rows,
        accumulated_batches=config.accumulated_batches,
        patience_epochs=config.patience_epochs,
        max_length=max_length,
        seed=lesson.seed,
        blend=lesson.blend,
        problem=lesson.problem,
        class_weights=lesson.class_weights,
        share=lesson.share,
    )
    curve = train_classifier(
        make,
        tokenizer,
        Rows(lesson.rows.texts, lesson.rows.gold, lesson.soft_labels.logits),
        Rows(lesson.validation.texts, lesson.validation.gold),
        recipe,
        folder,
        lesson.work_dir and lesson.work_dir / TOKENS,
        beside,
    )
    describe_model(folder, "transformers", lesson, max_length=max_length)
    if lesson.share == 1:
        _check_served(folder, tokenizer, max_length, lesson)
    return curve


def _check_served(
    folder: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, lesson: Lesson
) -> None:
    """Raise PotstillError unless a student is served as it was trained, seen on validation rows."""
    from distill_tasks.students.folder import check_served
    from distill_tasks.training.tokens import encode, pick_rows

    texts = [lesson.validation.texts[row] for row in pick_rows(lesson.validation.texts)]
    trained = SequenceClassifier(folder, max_length, exact=True).logits(texts)
    check_served(folder, texts, trained, encode(tokenizer, texts, max_length)["input_ids"])


def _place_teacher(config: TransformerSettings, lesson: Lesson) -> TeacherBeside | None:
    """Return the teacher in memory, where a term that this student can lower needs it."""
    from distill_tasks.training.hidden_states import place_beside

    wanted = any(term in lesson.blend.terms for term in INSIDE)
    if lesson.teacher is None or not wanted or not config.reads_as_teacher:
        return None
    return place_beside(lesson.teacher, lesson.blend)
