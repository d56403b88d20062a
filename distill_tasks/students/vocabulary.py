"""A smaller vocabulary: the tokens of a corpus, cut out of a tokenizer and its embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from distill_tasks.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def check_pieces(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise InputError unless a vocabulary is WordPiece, from which tokens can be removed safely.

    WordPiece always takes the longest known piece, so texts whose pieces are all kept are tokenised
    as before. This does not hold for BPE and Unigram.
    """
    found = type(tokenizer.backend_tokenizer.model).__name__
    if found != "WordPiece":
        raise InputError(
            f"students.vocabulary corpus needs a WordPiece tokenizer; the teacher's is {found}. "
            "Set it to teacher."
        )


def find_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Return, in rising order, the ids of tokens in texts, special tokens and single characters.

    Raises InputError unless the vocabulary is WordPiece.
    """
    from tokenizers import Tokenizer

    check_pieces(tokenizer)
    written = tokenizer.backend_tokenizer.to_str()
    spec, backend = json.loads(written), Tokenizer.from_str(written)
    backend.no_truncation()
    prefix = spec["model"]["continuing_subword_prefix"]
    pieces = spec["model"]["vocab"].items()
    found = {number for piece, number in pieces if len(piece.removeprefix(prefix)) == 1}
    found |= {token["id"] for token in spec["added_tokens"]} | {*tokenizer.all_special_ids}
    encodings = backend.encode_batch_fast(list(dict.fromkeys(texts)))
    return sorted(found.union(*(encoding.ids for encoding in encodings)))


def keep_pieces(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """Return a tokenizer that knows only some tokens, numbered by their place in ``kept``."""
    from transformers import AutoTokenizer

    places = {old: new for new, old in enumerate(kept)}
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["truncation"] = spec["padding"] = None
    pieces = spec["model"]["vocab"].items()
    spec["model"]["vocab"] = {piece: places[old] for piece, old in pieces if old in places}
    for token in spec["added_tokens"]:
        token["id"] = places[token["id"]]
    ends = spec["post_processor"] or {}
    for part in ends.get("processors", [ends]):
        for special in part.get("special_tokens", {}).values():
            special["ids"] = [places[old] for old in special["ids"]]
        for end in part.keys() & {"cls", "sep"}:
            part[end][1] = places[part[end][1]]
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
        smaller: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False
        )
    return smaller


def keep_embeddings(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Reduce a model to the embeddings of some tokens, numbered by their place in ``kept``."""
    import torch

    places = {old: new for new, old in enumerate(kept)}
    full: Any = model.get_input_embeddings()
    model.set_input_embeddings(
        torch.nn.Embedding.from_pretrained(
            full.weight.detach()[list(kept)],
            freeze=False,
            padding_idx=places.get(full.padding_idx),
        )
    )
    model.config.vocab_size = len(kept)
    for key, old in model.config.to_dict().items():
        if key.endswith("_token_id") and isinstance(old, int) and old in places:
            setattr(model.config, key, places[old])
