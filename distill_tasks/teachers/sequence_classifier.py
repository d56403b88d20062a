"""Teacher kind ``transformers``: a sequence classifier that is ready to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from distill_tasks.device import choose_device
from distill_tasks.digests import digest, digest_folder
from distill_tasks.errors import InputError, shortlist
from distill_tasks.problem import Problem
from distill_tasks.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def read_classes(config: TransformersTeacher) -> tuple[str, ...]:
    """Return the class names of a ready teacher in the order of its logits."""
    names = _read_settings(config.model, config.revision).get("id2label", {})
    return tuple(names[key] for key in sorted(names, key=int))


def read_depth(model: str, revision: str | None, max_length: int) -> int:
    """Return the number of transformer layers of a model.

    Raises InputError for a model that is not there, has no layers, or cannot read so much text.
    """
    settings = _read_settings(model, revision)
    longest = settings.get("max_position_embeddings", max_length)
    if max_length > longest:
        raise InputError(
            f"teacher.max_length is {max_length}; {model} reads at most {longest} tokens. "
            f"Set it to {longest} or less."
        )
    for key in ("num_hidden_layers", "n_layers", "num_layers"):
        if key in settings:
            return int(settings[key])
    raise InputError(f"Model {model} tells no number of layers. Use a transformer encoder.")


def check_tokenizer(model: str, revision: str | None) -> None:
    """Raise InputError unless a tokenizer pads and is a fast one, which every runtime can serve."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"The tokenizer of {model} cannot be loaded: {reason}") from None
    if not tokenizer.is_fast:
        raise InputError(
            f"Model {model} has a {type(tokenizer).__name__}, which has no fast implementation "
            "(tokenizer.json). Use a model that has one: it is what students are served with."
        )
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"The tokenizer of {model} has no padding token, so rows cannot be read together. "
            "Set its pad_token and save it."
        )
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    if Path(model).is_dir() and not any((Path(model) / name).is_file() for name in files):
        raise InputError(f"Model folder {model} has no tokenizer. Save its tokenizer there too.")


def check_classes(
    config: TransformersTeacher, classes: Sequence[str] | None, problem: Problem
) -> None:
    """Raise InputError unless the teacher answers this problem with the classes of the data."""
    said = _read_settings(config.model, config.revision).get("problem_type")
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


def _read_settings(model: str, revision: str | None) -> dict[str, Any]:
    path = Path(model) / "config.json"
    if path.is_file():
        settings: dict[str, Any] = json.loads(path.read_text())
        return settings
    if Path(model).is_dir():
        raise InputError(f"Model folder {model} has no config.json. Give a transformers folder.")
    digest_model(model, revision)
    from transformers import AutoConfig

    try:
        return dict(AutoConfig.from_pretrained(model, revision=revision).to_dict())
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"Model {model!r} cannot be loaded from the hub: {reason}") from None


class SequenceClassifier:
    """A sequence classifier that answers in length-sorted batches, in the fastest precision."""

    def __init__(self, model: str | Path, max_length: int, revision: str | None = None) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from distill_tasks.first_token import read_first_token

        self.device = choose_device()
        self.max_length = max_length
        self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            model,
            revision=revision,
            dtype=torch.bfloat16 if self.device.bf16 else torch.float32,
        )
        read_first_token(self.model)
        self.model.eval().to(self.device.kind)
        names = self.model.config.id2label
        self.classes = tuple(names[key] for key in sorted(names, key=int))

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
