"""Teacher kind ``finetune``: a pretrained base fine-tuned on the gold rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError
from distill_tasks.problems.classification import balance_classes
from distill_tasks.teachers.base import LocalTeacher
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.classifier import PROBLEM_TYPES
from distill_tasks.training.curve import Curve
from distill_tasks.training.device import choose_device
from distill_tasks.training.model_settings import class_settings, without_dropout
from distill_tasks.training.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill_tasks.core.notes import Note
    from distill_tasks.core.progress import ProgressFile
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.problems.classification import Problem

CODE_VERSION = 5
"""Raised when a change of the code changes the teacher that comes out."""


class FinetuneTeacher(LocalTeacher):
    """A pretrained base model that is fine-tuned on the gold rows of the train split."""

    ready: ClassVar[bool] = False
    accumulated_batches: ClassVar[int] = 1

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

    @property
    def start(self) -> Checkpoint:
        """The base that it is fine-tuned from."""
        return Checkpoint(self.base, self.revision, self.max_length)

    def check(self, columns: RowFormat, problem: Problem) -> None:
        """Return None, because it learns the classes of the gold rows."""

    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Raise InputError unless there is gold to learn from."""
        if not corpus.splits["train"].has_gold:
            raise InputError(
                "teacher.kind finetune needs gold labels in data.train. "
                "Set data.label_column, or use a teacher that is ready."
            )
        return []

    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of the teacher that this base, these gold rows and settings make."""
        settings, base = self.model_dump(exclude={"base", "revision"}), self.start.digest()
        gold = [corpus.splits[name].digest for name in ("train", "validation")]
        return digest(
            CODE_VERSION, settings, base, corpus.classes, corpus.problem, gold, seed, balanced
        )

    def train(
        self,
        corpus: Corpus,
        folder: Path,
        *,
        seed: int,
        balanced: bool,
        progress: ProgressFile | None = None,
    ) -> Sequence[Curve]:
        """Fine-tune the base on the gold rows into ``folder`` and return its validation curve.

        The epoch with the lowest validation loss is kept. ``balanced`` gives all classes the same
        total weight; every step is written to ``progress``.
        """
        from distill_tasks.training.token_store import Tokens
        from distill_tasks.training.trainer import train_classifier

        train, validation = corpus.splits["train"], corpus.splits["validation"]
        recipe = Recipe.of(
            self,
            learning_rate=self.learning_rate,
            max_length=self.max_length,
            seed=seed,
            problem=corpus.problem,
            class_weights=balance_classes(train.gold, len(corpus.classes)) if balanced else None,
        )
        tokenizer = self.start.open_tokenizer()
        tokens = Tokens(tokenizer, self.max_length, None)
        return train_classifier(
            lambda: self._make_model(corpus),
            tokenizer,
            tokens.read_rows(train.texts, train.gold),
            tokens.read_rows(validation.texts, validation.gold),
            recipe,
            folder,
            progress=progress,
        )

    def one_epoch(self) -> tuple[FinetuneTeacher, int]:
        """Return the same teacher trained for one epoch, and the epochs that it may take."""
        return self.model_copy(update={"epochs": 1}), self.epochs

    def _make_model(self, corpus: Corpus) -> PreTrainedModel:
        """Return the base with a new head for the classes of a corpus, and without dropout."""
        from transformers import AutoConfig, AutoModelForSequenceClassification

        settings = AutoConfig.from_pretrained(
            self.base,
            revision=self.revision,
            problem_type=PROBLEM_TYPES[corpus.problem],
            trust_remote_code=False,
            **class_settings(corpus.classes),
        )
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            self.base,
            revision=self.revision,
            config=without_dropout(settings),
            dtype="float32",
            attn_implementation=choose_device().training_attention,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,  # the base may have the head of another task
        )
        return model
