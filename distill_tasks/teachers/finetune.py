"""Teacher kind ``finetune``: a pretrained base fine-tuned on the gold rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill_tasks.core.digests import digest
from distill_tasks.core.settings import Settings
from distill_tasks.problems.classification import balance_classes
from distill_tasks.training.checkpoint import digest_model
from distill_tasks.training.classifier import PROBLEM_TYPES
from distill_tasks.training.device import choose_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill_tasks.core.progress import ProgressFile
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.training.trainer import Curve

CODE_VERSION = 5
"""Raised when a change of the code changes the teacher that comes out."""


class FinetuneTeacher(Settings):
    """A pretrained base model that is fine-tuned on the gold rows of the train split."""

    kind: Literal["finetune"] = Field("finetune", description="The kind of teacher.")
    base: str = Field(description="Local folder or hub id of a pretrained encoder.")
    revision: str | None = Field(
        None, description="Commit of the hub model; required for hub ids, absent for folders."
    )
    max_length: int = Field(
        256, ge=8, le=8192, description="Tokens read of each text; the rest is cut off."
    )
    epochs: int = Field(8, ge=1, le=100, description="Passes over the gold rows at most.")
    patience_epochs: int = Field(
        3, ge=1, le=100, description="Epochs without a better validation loss before stopping."
    )
    learning_rate: float = Field(
        1e-4, gt=0, le=1, description="Peak learning rate of AdamW, decayed linearly."
    )
    batch_rows: int = Field(16, ge=1, le=1024, description="Rows in one training step.")


def digest_teacher(config: FinetuneTeacher, corpus: Corpus, seed: int, balanced: bool) -> str:
    """Return the digest of the teacher that this base, these gold rows and settings make."""
    settings = config.model_dump(exclude={"base", "revision"})
    base = digest_model(config.base, config.revision)
    gold = [corpus.splits[name].digest for name in ("train", "validation")]
    return digest(
        CODE_VERSION, settings, base, corpus.classes, corpus.problem, gold, seed, balanced
    )


def fit(
    config: FinetuneTeacher,
    corpus: Corpus,
    folder: Path,
    seed: int,
    balanced: bool,
    progress: ProgressFile | None = None,
) -> Sequence[Curve]:
    """Fine-tune the base on the gold rows into ``folder`` and return its validation curve.

    The epoch with the lowest validation loss is kept. ``balanced`` makes every class count the
    same; ``progress`` is told every step.
    """
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        set_seed,
    )

    from distill_tasks.training.first_token import read_first_token
    from distill_tasks.training.trainer import (
        Recipe,
        Rows,
        name_classes,
        train_classifier,
        without_dropout,
    )

    settings = AutoConfig.from_pretrained(
        config.base,
        revision=config.revision,
        problem_type=PROBLEM_TYPES[corpus.problem],
        trust_remote_code=False,
        **name_classes(corpus.classes),
    )

    def make() -> PreTrainedModel:
        set_seed(seed)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            config.base,
            revision=config.revision,
            config=without_dropout(settings),
            dtype="float32",
            attn_implementation=choose_device().training_attention,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,  # a base may bring the head of another task
        )
        read_first_token(model)
        return model

    train, validation = corpus.splits["train"], corpus.splits["validation"]
    recipe = Recipe(
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        batch_rows=config.batch_rows,
        max_length=config.max_length,
        patience_epochs=config.patience_epochs,
        seed=seed,
        problem=corpus.problem,
        class_weights=balance_classes(train.gold, len(corpus.classes)) if balanced else None,
    )
    return train_classifier(
        make,
        AutoTokenizer.from_pretrained(
            config.base, revision=config.revision, trust_remote_code=False
        ),
        Rows(train.texts, train.gold),
        Rows(validation.texts, validation.gold),
        recipe,
        folder,
        progress=progress,
    )
