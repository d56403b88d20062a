"""A pretrained model on disk or on the hub: its digest, its configuration and its classes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.core.digests import digest, digest_folder
from distill_tasks.core.errors import InputError, say_reason

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class TeacherModel:
    """Where the teacher's weights lie and how much text it reads."""

    model: str | Path
    revision: str | None
    max_length: int


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
