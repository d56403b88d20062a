"""Teacher kind ``transformers``: a sequence classifier that is ready to answer."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from distill_tasks.device import choose_device
from distill_tasks.digests import digest, digest_folder
from distill_tasks.errors import InputError, say_reason, shortlist
from distill_tasks.problem import Problem
from distill_tasks.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PretrainedConfig

PROBLEM_TYPES: dict[Problem, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
}
"""What transformers calls each kind of problem."""

LABELLING_BATCH_ROWS = 32
"""Larger batches leave the CPU's cache and were slower (docs/decisions.md)."""


class TransformersTeacher(Settings):
    """A ready sequence classifier: a local folder, or a hub id with its revision."""

    kind: Literal["transformers"] = Field("transformers", description="The kind of teacher.")
    model: str = Field(description="Local folder or hub id of a sequence classifier.")
    revision: str | None = Field(
        None, description="Commit of the hub model; required for hub ids, absent for folders."
    )
    max_length: int = Field(
        256, ge=8, le=8192, description="Tokens read of each text; the rest is cut off."
    )


def digest_model(model: str, revision: str | None) -> str:
    """Return the digest of a model: its bytes when local, its id and commit when on the hub.

    Raises InputError for a hub id without a revision.
    """
    if Path(model).is_dir():
        return digest_folder(Path(model))
    if revision is None:
        raise InputError(
            f"Model {model!r} is no local folder, and as a hub id it has no revision. "
            "Give the folder, or add `revision: <commit>` so that every run gets the same weights."
        )
    return digest(model, revision)


def digest_teacher(config: TransformersTeacher) -> str:
    """Return the digest of a ready teacher: its weights and how much text it reads."""
    return digest(config.kind, digest_model(config.model, config.revision), config.max_length)


def read_config(model: str | Path, revision: str | None) -> PretrainedConfig:
    """Return the configuration of a pretrained model, with the defaults that its file leaves out.

    Raises InputError for a model that is not there, or that brings code of its own, which is never
    run.
    """
    from transformers import AutoConfig

    if not Path(model).is_dir():
        digest_model(str(model), revision)  # a hub id needs a revision
    elif not (Path(model) / "config.json").is_file():
        raise InputError(f"Model folder {model} has no config.json. Give a transformers folder.")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            model, revision=revision, trust_remote_code=False
        )
    except Exception as error:  # noqa: BLE001  # every type of model checks its own settings
        raise InputError(f"Model {model} cannot be read: {say_reason(error)}") from None
    if getattr(config, "auto_map", None):
        raise InputError(
            f"Model {model} brings custom code (auto_map in its config.json), which is never run. "
            f"If transformers' own {config.model_type} is what it needs, take auto_map out."
        )
    return config


def read_classes(config: TransformersTeacher) -> tuple[str, ...]:
    """Return the class names of a ready teacher in the order of its logits.

    Raises InputError for a model that gives one number, as a regression does.
    """
    found = read_config(config.model, config.revision)
    classes = name_classes(found)
    if len(classes) < 2 or found.problem_type == "regression":
        raise InputError(
            f"Teacher {config.model} is a regression: its answer is a number, not one of several "
            "classes. Give a classifier of two classes or more."
        )
    return classes


def name_classes(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the class names of a sequence classifier in the order of its logits."""
    return tuple(name for _, name in sorted((config.id2label or {}).items()))


@functools.cache
def read_truncation_side(model: str, revision: str | None) -> str:
    """Return where the tokenizer of a model cuts long texts: ``left`` or ``right``."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    side: str = tokenizer.truncation_side
    return side


def check_classes(
    config: TransformersTeacher, classes: Sequence[str] | None, problem: Problem
) -> None:
    """Raise InputError unless the teacher answers this problem with the classes of the data."""
    said = read_config(config.model, config.revision).problem_type
    if said in PROBLEM_TYPES.values() and said != PROBLEM_TYPES[problem]:
        raise InputError(
            f"Teacher {config.model} is of {said}; the configuration says `problem: {problem}`. "
            "Correct one of them."
        )
    theirs = read_classes(config)
    if classes is not None and set(theirs) != set(classes):
        raise InputError(
            f"Teacher {config.model} answers {shortlist(sorted(theirs))}; the data has "
            f"{shortlist(sorted(classes))}. Rename the data's labels or the model's id2label."
        )


class SequenceClassifier:
    """A sequence classifier that answers in length-sorted batches, in the fastest precision.

    One that is ``exact`` answers in float32.
    """

    def __init__(
        self,
        model: str | Path,
        max_length: int,
        revision: str | None = None,
        exact: bool = False,
    ) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from distill_tasks.first_token import read_first_token

        self.device = choose_device()
        self.max_length = max_length
        self.tokenizer = AutoTokenizer.from_pretrained(
            model, revision=revision, trust_remote_code=False
        )
        self.model = AutoModelForSequenceClassification.from_pretrained(
            model,
            revision=revision,
            trust_remote_code=False,
            dtype=torch.bfloat16 if self.device.bf16 and not exact else torch.float32,
        )
        read_first_token(self.model)
        self.model.eval().to(self.device.kind)
        self.classes = name_classes(self.model.config)

    def answer(
        self, texts: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (row numbers, logits (rows, classes)) batch by batch, shortest texts first."""
        import torch

        from distill_tasks.compilation import FasterReader
        from distill_tasks.tokens import encode, pad

        encoded = encode(self.tokenizer, texts, self.max_length)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        order = np.argsort(lengths, kind="stable")
        with closing(FasterReader(self.model, lengths.sum())) as read:
            for start in range(0, len(order), LABELLING_BATCH_ROWS):
                rows = order[start : start + LABELLING_BATCH_ROWS]
                batch = {key: [values[row] for row in rows] for key, values in encoded.items()}
                padded = pad(self.tokenizer, batch, self.max_length)
                inputs = {name: ids.to(self.device.kind) for name, ids in padded.items()}
                with torch.inference_mode():
                    logits = read(**inputs).logits.float().cpu().numpy()
                yield rows, logits

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes) in the order of the texts."""
        rows, said = zip(*self.answer(texts), strict=True)
        logits: NDArray[np.float32] = np.concatenate(said)[np.argsort(np.concatenate(rows))]
        return logits
