"""Student family ``pretrained``: any other pretrained encoder, with its own tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.core.settings import Spans
from distill_tasks.students.base import DEFAULT_MAX_LENGTH, TrainingSet, name_model
from distill_tasks.students.transformer import TransformerSettings, Untrained
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.classifier import PROBLEM_TYPES
from distill_tasks.training.device import choose_device
from distill_tasks.training.model_settings import class_settings, without_dropout
from distill_tasks.training.probe import probe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

LEARNING_RATE = 3e-4
"""Default learning rate: higher than for a teacher's layers, since the head is new."""
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
OTHER_WEIGHTS = {".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth"}
"""Suffixes of weight files that are pickled or not for torch."""


class PretrainedStudent(TransformerSettings):
    """A pretrained encoder of any origin, which gets a new head."""

    size_field: ClassVar[str] = "model"

    family: Literal["pretrained"] = Field("pretrained", description="The family of students.")
    model: Annotated[str, Field(min_length=1), Spans()] = Field(
        description="Local folder or hub id of a pretrained encoder; a list spans the grid."
    )
    revision: str | None = Field(
        None, description="Commit of the hub model; required for hub ids, absent for folders."
    )
    max_length: Annotated[Annotated[int, Field(ge=8, le=8192)] | None, Spans()] = Field(
        None,
        description="Tokens read of each text, as many as the teacher reads when absent; a list "
        "spans the grid.",
    )

    @property
    def name(self) -> str:
        """A name unique within a grid, with the last part of the model's path."""
        short = {"model": name_model(self.model), "revision": self.revision and self.revision[:8]}
        return super(PretrainedStudent, self.model_copy(update=short)).name

    @property
    def usual_learning_rate(self) -> float:
        """The peak learning rate if the user sets none."""
        return LEARNING_RATE

    def own_start(self, teacher: Checkpoint | None) -> Checkpoint:
        """Return the checkpoint of the pretrained encoder.

        Of the teacher only the number of tokens is used, if the student sets none.
        """
        usual = teacher.max_length if teacher else DEFAULT_MAX_LENGTH
        return Checkpoint(self.model, self.revision, self.max_length or usual)

    def check_own_start(self, teacher: Checkpoint | None) -> None:
        """Raise InputError unless its model can become a student that is served."""
        check_start(self.own_start(teacher))

    def begin(self, training_set: TrainingSet) -> Untrained:
        """Return the pretrained encoder with a new head, and its own tokenizer."""
        start = self.own_start(training_set.teacher)
        tokenizer = start.open_tokenizer()
        return Untrained(lambda: make_classifier(start, training_set), tokenizer, start.max_length)


def check_start(start: Checkpoint) -> None:
    """Raise InputError unless a pretrained model can become a student that is served."""
    config = start.read_config()
    if not is_encoder(config):
        kind = shortlist(config.architectures or [config.model_type])
        raise InputError(
            f"Pretrained model {start.model} is {kind}, no text encoder. "
            "Set students.model to one, such as BERT, RoBERTa or ELECTRA."
        )
    check_weights(start)
    probe(start, "students.max_length", ready=False)


def is_encoder(config: PretrainedConfig) -> bool:
    """Return whether a model of this configuration is a text encoder that can classify.

    Decoders can classify too, from their last token; unlike encoders they have no masked-word head.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    kind = config.model_type
    decodes = getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False)
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    classifies = kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return classifies and not decodes and (masked or not causal)


def make_classifier(start: Checkpoint, training_set: TrainingSet) -> PreTrainedModel:
    """Return the pretrained encoder with a new head for the training set's classes."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(
        start.model,
        revision=start.revision,
        trust_remote_code=False,
        problem_type=PROBLEM_TYPES[training_set.problem],
        **class_settings(training_set.classes),
    )
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(
        without_dropout(config),
        attn_implementation=choose_device().training_attention,
        dtype="float32",
        trust_remote_code=False,
    )
    encoder = AutoModel.from_pretrained(
        start.model,
        revision=start.revision,
        trust_remote_code=False,
        use_safetensors=True,
        dtype="float32",
    )
    # Some encoders have a pooler that their classifiers do not use.
    model.base_model.load_state_dict(encoder.state_dict(), strict=False)
    return model


def check_weights(start: Checkpoint) -> None:
    """Raise InputError unless there are safetensors, because pickled weights may run code."""
    from transformers.utils.hub import has_file

    try:
        if any(has_file(start.model, name, start.revision) for name in SAFETENSORS):
            return
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"Pretrained model {start.model} cannot be read: {reason}") from None
    folder = Path(start.model)
    others = sorted(path.name for path in folder.glob("*") if path.suffix in OTHER_WEIGHTS)
    found = f"only {shortlist(others)}" if others else "no weights"
    raise InputError(
        f"Pretrained model {start.model} has {found}, but no {SAFETENSORS[0]}. "
        "Load it where you trust it, and write it with save_pretrained."
    )
