"""Checks of a pretrained model before work starts: that it loads, answers and is consistent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from distill_tasks.core.errors import InputError, say_reason, shortlist

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from distill_tasks.training.checkpoint import Checkpoint

LFS_POINTER = b"version https://git-lfs"
"""The first bytes of the pointer file that git-lfs leaves in place of a large file."""


def probe(
    start: Checkpoint, setting: str, ready: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a model as a sequence classifier, checked to load and to answer, and its tokenizer.

    A ``ready`` model has its own head. ``setting`` is the configuration key of ``max_length``, for
    messages. Raises InputError for weights that are broken or would start at random, tokens without
    embeddings, padding that changes answers, and more tokens than the model can read.
    """
    import torch

    start.read_config()
    tokenizer = start.open_tokenizer()
    model = load_classifier(start, ready)
    _check_embeddings(start, model, tokenizer)
    with torch.inference_mode():
        _check_padding(start, model, tokenizer)
        _check_length(start, model, tokenizer, setting)
    return model, tokenizer


def check_reading(start: Checkpoint, texts: Sequence[str]) -> None:
    """Raise InputError unless training and serving tokenise texts alike.

    Training uses the tokenizer of transformers, serving the tokenizer.json that it saves.
    """
    from distill_tasks.serving.served_text import bound, open_tokenizer, read_ids
    from distill_tasks.training.tokens import encode

    tokenizer = start.open_tokenizer()
    trained = encode(tokenizer, texts, start.max_length)["input_ids"]
    with TemporaryDirectory() as folder:
        bound(tokenizer.backend_tokenizer, start.max_length, tokenizer.truncation_side)
        tokenizer.backend_tokenizer.save(str(Path(folder, "tokenizer.json")))
        served = read_ids(
            open_tokenizer(Path(folder), start.max_length), texts, special_tokens=True
        )
    for text, ours, theirs in zip(texts, served, trained, strict=True):
        if (ours or [tokenizer.pad_token_id]) != theirs:
            raise InputError(
                f"The tokenizer of {start.model} reads {text[:40]!r} differently than its "
                "tokenizer.json, with which students are served. Use another model."
            )


def load_classifier(start: Checkpoint, ready: bool) -> PreTrainedModel:
    """Return a model as a sequence classifier, in the precision it was saved in.

    Raises InputError for broken weights, and for weights that would start at random; head and
    pooler may do so in a model that is not ``ready``.
    """
    from transformers import AutoModelForSequenceClassification

    model = start.model
    _refuse_pointers(Path(model))
    try:
        classifier, found = AutoModelForSequenceClassification.from_pretrained(
            model,
            revision=start.revision,
            trust_remote_code=False,
            dtype="auto",
            ignore_mismatched_sizes=not ready,  # a base may bring the head of another task
            output_loading_info=True,
        )
    except Exception as error:  # noqa: BLE001  # broken files raise errors of many types
        raise InputError(
            f"The weights of {model} cannot be loaded: {say_reason(error)}. "
            "Fetch or save them again."
        ) from None
    loaded: PreTrainedModel = classifier
    absent = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    inside = {name for name in absent if _is_inside(loaded, name)}
    if inside:
        raise InputError(
            f"The weights of {model} lack {shortlist(sorted(inside), 3)}, which its config.json "
            "promises. Fetch or save weights and configuration together."
        )
    if ready and absent:
        raise InputError(
            f"Teacher {model} has no head among its weights ({shortlist(sorted(absent), 3)}): it "
            "would answer at random. Give a trained classifier, or set teacher.kind to finetune."
        )
    return loaded


def _is_inside(model: PreTrainedModel, name: str) -> bool:
    """Return whether a weight belongs to the encoder, its pooler excluded."""
    return name.startswith(f"{model.base_model_prefix}.") and "pooler" not in name


def _refuse_pointers(folder: Path) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise InputError(
                    f"{path} is a git-lfs pointer, not the weights. Run `git lfs pull` there."
                )


def _check_embeddings(
    start: Checkpoint, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows, largest = len(embeddings.weight), max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise InputError(
            f"The tokenizer of {start.model} numbers its tokens up to {largest}; the model has "
            f"embeddings of {rows} tokens. Resize them (resize_token_embeddings) and save it."
        )


def _check_padding(
    start: Checkpoint, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise InputError unless a row has the same logits in a batch with a longer row as alone."""
    import torch

    from distill_tasks.training.tokens import encode, pad

    rows = encode(tokenizer, ["a", "a a a a a a"], start.max_length)
    if any(kind for row in rows.get("token_type_ids", []) for kind in row):
        raise InputError(
            f"The tokenizer of {start.model} gives tokens of one text another type than 0, which "
            "students are not served with. Use another model."
        )
    try:
        alone = model(**{name: torch.tensor(ids[:1]) for name, ids in rows.items()}).logits
        online_teacher = model(**pad(tokenizer, rows, start.max_length)).logits[:1]
    except Exception as error:  # noqa: BLE001  # models name no kinds of errors
        raise InputError(
            f"Model {start.model} cannot answer two rows at once: {say_reason(error)}"
        ) from None
    if not bool(torch.isfinite(online_teacher).all()):
        raise InputError(f"Model {start.model} answers NaN or infinity. Its weights are damaged.")
    apart = (alone - online_teacher).abs().max()
    if apart > _rounding(alone):
        raise InputError(
            f"Model {start.model} answers a text differently if it is padded (logits differ by "
            f"{apart:.2g}). Its tokenizer pads on the {tokenizer.padding_side}: try the other "
            "padding_side, and save it."
        )


def _rounding(logits: Tensor) -> float:
    """Return the tolerated difference between logits of one text, which depends on precision."""
    import torch

    return float(torch.finfo(logits.dtype).eps ** 0.5 * (1 + logits.abs().max()))


def _check_length(
    start: Checkpoint,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    setting: str,
) -> None:
    """Raise InputError unless a model can read ``max_length`` tokens."""
    import torch

    from distill_tasks.training.tokens import encode

    row = encode(tokenizer, ["a " * start.max_length], start.max_length)
    failed: list[Exception] = []

    def reads(tokens: int) -> bool:
        try:
            model(**{name: torch.tensor([ids[0][:tokens]]) for name, ids in row.items()})
        except Exception as error:  # noqa: BLE001  # models name no kinds of errors
            failed.append(error)
            return False
        return True

    promised = _read_positions(model.config)
    if start.max_length <= promised and reads(start.max_length):
        return
    usable = _find_most(reads, min(start.max_length, promised))
    if usable == 0:
        raise InputError(f"Model {start.model} cannot answer a text: {say_reason(failed[-1])}")
    raise InputError(
        f"{setting} is {start.max_length}; {start.model} reads at most {usable} tokens. "
        f"Set it to {usable} or less."
    )


def _read_positions(config: PretrainedConfig) -> float:
    """Return the number of positions in a configuration; infinity for models that need none."""
    positions = getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else math.inf


def _find_most(reads: Callable[[int], bool], limit: float) -> int:
    """Return the largest number of tokens, up to a limit, that the model can read."""
    fewest, most = 0, int(limit)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        fewest, most = (middle, most) if reads(middle) else (fewest, middle - 1)
    return fewest
