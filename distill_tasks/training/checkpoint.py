"""A pretrained model on disk or on the hub: its digest, configuration, classes and tokenizer."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.core.digests import digest, digest_folder
from distill_tasks.core.errors import InputError, say_reason

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained model, and how many tokens of each text it reads."""

    model: str | Path
    """Local folder or hub id."""
    revision: str | None
    """Commit of a hub id."""
    max_length: int

    def digest(self) -> str:
        """Return the digest of the model: of its bytes if local, of its id and commit if hosted.

        Raises InputError for a hub id without a revision.
        """
        if Path(self.model).is_dir():
            return digest_folder(Path(self.model))
        if self.revision is None:
            raise InputError(
                f"Model {str(self.model)!r} is no local folder, and as a hub id it has no "
                "revision. Give the folder, or add `revision: <commit>` so that every run gets "
                "the same weights."
            )
        return digest(str(self.model), self.revision)

    def read_config(self) -> PretrainedConfig:
        """Return the model's configuration, with the defaults that its file leaves out.

        Raises InputError for a model that does not exist, or that needs its own code, which is
        never run.
        """
        from transformers import AutoConfig

        model = self.model
        if not Path(model).is_dir():
            self.digest()  # a hub id needs a revision
        elif not (Path(model) / "config.json").is_file():
            raise InputError(
                f"Model folder {model} has no config.json. Give a transformers folder."
            )
        try:
            config: PretrainedConfig = AutoConfig.from_pretrained(
                model, revision=self.revision, trust_remote_code=False
            )
        except Exception as error:  # noqa: BLE001  # every type of model checks its own settings
            hint = "" if Path(model).is_dir() else ". A folder of save_pretrained needs no hub."
            raise InputError(f"Model {model} cannot be read: {say_reason(error)}{hint}") from None
        if getattr(config, "auto_map", None):
            raise InputError(
                f"Model {model} brings custom code (auto_map in its config.json), which is never "
                f"run. If transformers' own {config.model_type} is what it needs, take auto_map "
                "out."
            )
        return config

    def open_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the model's tokenizer, checked so that every runtime can serve it.

        Raises InputError unless it is a fast one with a padding token, saved beside its model.
        """
        from transformers import AutoTokenizer

        model = self.model
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                model, revision=self.revision, trust_remote_code=False
            )
        except Exception as error:  # noqa: BLE001  # the Rust library has no kinds of errors
            raise InputError(
                f"The tokenizer of {model} cannot be loaded: {say_reason(error)}"
            ) from None
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
            raise InputError(
                f"Model folder {model} has no tokenizer. Save its tokenizer there too."
            )
        return tokenizer

    def read_truncation_side(self) -> str:
        """Return the side on which its tokenizer cuts long texts: ``left`` or ``right``."""
        return _read_truncation_side(self)


def read_classes(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the class names of a sequence classifier in the order of its logits."""
    return tuple(name for _, name in sorted((config.id2label or {}).items()))


@functools.cache
def _read_truncation_side(checkpoint: Checkpoint) -> str:
    side: str = checkpoint.open_tokenizer().truncation_side
    return side
