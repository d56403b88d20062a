"""A causal language model on this machine or on the hub: its digest, configuration and weights."""

from __future__ import annotations

from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_tasks.core.digests import digest_file
from distill_tasks.core.errors import InputError, say_reason
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.device import choose_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LocalModel:
    """A transformers folder, a GGUF file, or a hub id with its commit."""

    model: str
    revision: str | None = None

    @property
    def file(self) -> Path | None:
        """The GGUF file; None for a folder or a hub id."""
        return Path(self.model) if self.model.endswith(".gguf") else None

    def digest(self) -> str:
        """Return the digest of the model: of its bytes if local, of its id and commit if hosted.

        Raises InputError for a file that does not exist, or a hub id without a revision.
        """
        if self.file is None:
            return self._checkpoint.digest()
        self._refuse_missing()
        return digest_file(self.file)

    def read_config(self) -> PretrainedConfig:
        """Return the model's configuration.

        Raises InputError for a model that does not exist, cannot be read, needs its own code, or
        does not predict the next token.
        """
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        read = self._checkpoint.read_config if self.file is None else self._read_file_config
        config, known = read(), MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        own = config.architectures or [known.get(config.model_type, config.model_type)]
        if not set(own) & set(known.values()):
            what = " or ".join(own)
            raise InputError(
                f"Model {self.model} is a {what}, which does not predict the next token. Give a "
                "causal language model, or for a classifier `kind: transformers`."
            )
        return config

    def open_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the model's tokenizer; raise InputError if it has none."""
        from transformers import AutoTokenizer

        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self._place, trust_remote_code=False, **self._which
            )
        except Exception as error:  # noqa: BLE001  # the Rust library has no kinds of errors
            raise InputError(
                f"The tokenizer of {self.model} cannot be loaded: {say_reason(error)}"
            ) from None
        return tokenizer

    def open(self) -> PreTrainedModel:
        """Return the model with its weights, on the fastest device in its fastest precision.

        A GGUF file is unpacked: with its weights left packed a pass takes a hundred times longer.
        """
        import torch
        from transformers import AutoModelForCausalLM, GgufConfig

        device = choose_device()
        packed = {} if self.file is None else {"quantization_config": GgufConfig(dequantize=True)}
        try:
            with redirect_stderr(StringIO()):  # a bar that no setting turns off
                model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                    self._place,
                    trust_remote_code=False,
                    dtype=torch.bfloat16 if device.bf16 else torch.float32,
                    **packed,
                    **self._which,
                )
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise InputError(f"Model {self.model} cannot be loaded: {say_reason(error)}") from None
        model.eval().to(device.kind)
        return model

    @property
    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.model, self.revision, 0)

    @property
    def _place(self) -> str:
        return self.model if self.file is None else str(self.file.parent)

    @property
    def _which(self) -> dict[str, Any]:
        """What says which file or commit is meant."""
        return {"revision": self.revision} if self.file is None else {"gguf_file": self.file.name}

    def _refuse_missing(self) -> None:
        if not Path(self.model).is_file():
            raise InputError(f"Model file {self.model} does not exist. Correct `teacher.model`.")

    def _read_file_config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        self._refuse_missing()
        try:
            config: PretrainedConfig = AutoConfig.from_pretrained(
                self._place, trust_remote_code=False, **self._which
            )
        except ImportError:
            raise InputError(
                f"To read {self.model} the package gguf is needed: pip install gguf"
            ) from None
        except Exception as error:  # noqa: BLE001  # its reader checks nothing
            raise InputError(f"Model {self.model} cannot be read: {say_reason(error)}") from None
        return config
