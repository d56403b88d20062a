"""What a served model takes as texts, and the features that it reads from them.

The features are token ids, or word and character n-grams.

This file lies beside `served_model`, in registered models too, and imports nothing of this project.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

WORD = re.compile(r"\b\w\w+\b")
"""The words of a text: scikit-learn's default token pattern."""
SHORTEST = 3
"""Length of the shortest character n-grams."""

CHARACTERS_PER_TOKEN = 16
"""A text with more characters for each token of the limit is shortened before tokenisation."""
MARGIN = 64
"""Characters next to a cut (and the rest of their word) whose tokens must not be used."""
BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
"""Where a text may be cut: at a single space."""
LOCAL = {
    *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
    *("Precompiled", "Prepend", "Strip", "StripAccents", "Digits", "Punctuation"),
}
"""Types of normalizers and pre-tokenizers that depend on no text beyond the next word."""
SPACES = {" {2,}", r"\s+"}
"""Patterns that match runs of spaces."""
WORDS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}", r"\p{N}{1,3}")
}
"""The word patterns of Qwen's and Llama's tokenizers."""


def check_list(texts: Any) -> None:
    """Raise ValueError for what is no list, array or column of texts."""
    if isinstance(texts, str):
        raise ValueError("One text was given alone. Give a list of strings.")
    if not isinstance(texts, Collection):
        raise ValueError(f"{texts!r} is no list of texts. Give a list of strings.")


def check_texts(texts: Iterable[Any]) -> None:
    """Raise ValueError for the first row that is not text, or holds half a character."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Row {row} is {text!r}, not text. Give a list of strings.")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"Row {row} holds half a character (a lone surrogate). Fix it.")


def open_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Open the tokenizer of a folder, set to cut texts to ``max_length`` tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bound(tokenizer, max_length, (tokenizer.truncation or {}).get("direction", "right"))
    return tokenizer


def bound(tokenizer: Tokenizer, max_length: int, side: str) -> None:
    """Set a tokenizer to cut texts to ``max_length`` tokens on a side, and not to pad."""
    tokenizer.enable_truncation(max_length, direction=side)
    tokenizer.no_padding()


def read_ids(tokenizer: Tokenizer, texts: Sequence[str], special_tokens: bool) -> list[list[int]]:
    """Return the token ids of each text, up to the tokenizer's limit."""
    short = [shorten(tokenizer, text) for text in texts]
    encodings = tokenizer.encode_batch_fast(short, add_special_tokens=special_tokens)
    return [encoding.ids for encoding in encodings]


def shorten(tokenizer: Tokenizer, text: str) -> str:
    """Return a part of a long text that contains all tokens up to the tokenizer's limit.

    Tokenising a whole text of ten megabytes takes ten seconds and a gigabyte. The text is cut at a
    space, and only if the tokenizer treats each word separately and no used token is near the cut:
    so the tokens stay the same. If this is not certain, the text is returned unchanged.
    """
    characters = CHARACTERS_PER_TOKEN * _read_bound(tokenizer)[0]
    if len(text) <= characters or not reads_words(tokenizer):
        return text
    while characters < len(text):
        part = _take_part(tokenizer, text, characters)
        if part is not None:
            return part
        characters *= 2
    return text


def _take_part(tokenizer: Tokenizer, text: str, characters: int) -> str | None:
    """Return about this many characters of a text, or None if more of it may be needed."""
    limit, left = _read_bound(tokenizer)
    first = BETWEEN_WORDS.search(text, len(text) - characters if left else characters)
    second = first and BETWEEN_WORDS.search(text, first.start() + MARGIN)
    if not (first and second):
        return None
    part = text[first.start() :] if left else text[: second.start()]
    read = tokenizer.encode(part, add_special_tokens=False).offsets
    if len(read) < limit:
        return None
    beside = read[0][0] < second.start() - first.start() if left else read[-1][1] > first.start()
    return None if beside else part


def _read_bound(tokenizer: Tokenizer) -> tuple[int, bool]:
    """Return the tokenizer's limit of tokens, and whether it keeps the last tokens of a text."""
    bound_to: dict[str, Any] = tokenizer.truncation or {}
    return bound_to["max_length"], bound_to["direction"] == "left"


def reads_words(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens of a word depend on no other word than its neighbours."""
    cleans, splits = _parts_of(tokenizer.normalizer), _parts_of(tokenizer.pre_tokenizer)
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        all(_is_local(part) for part in cleans)
        and all(_splits_words(part) or part["type"] in LOCAL for part in splits)
        and any(_splits_words(part) for part in splits)
        and not any(character.isspace() for token in added for character in token.content)
    )


def _parts_of(step: Normalizer | PreTokenizer | None) -> list[dict[str, Any]]:
    """Return the parts of a tokenizer's step, as described in its file."""
    if step is None:
        return []
    described: dict[str, Any] = json.loads(step.__getstate__())
    parts: list[dict[str, Any]] = [described]
    return described.get("normalizers") or described.get("pretokenizers") or parts


def _is_local(part: dict[str, Any]) -> bool:
    """Return whether a part of a normalizer depends on single characters or runs of spaces."""
    if part["type"] != "Replace":
        return part["type"] in LOCAL
    pattern = part["pattern"]
    text = pattern.get("String", " ")
    return pattern.get("Regex") in SPACES or not any(character.isspace() for character in text)


def _splits_words(part: dict[str, Any]) -> bool:
    """Return whether a part of a pre-tokenizer cuts at every space."""
    match part:
        case {"type": "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit"}:
            return True
        case {"type": "ByteLevel", "use_regex": True} | {"type": "Metaspace", "split": True}:
            return True
        case {"type": "Split", "pattern": {"Regex": pattern}}:
            return pattern in WORDS
    return False


def find_words(text: str, longest: int) -> list[str]:
    """Return every n-gram of up to ``longest`` words of a text in lower case."""
    words = WORD.findall(text)
    terms = list(words)
    for length in range(2, longest + 1):
        shifted = (words[start:] for start in range(length))
        terms.extend(map(" ".join, zip(*shifted, strict=False)))
    return terms


def find_characters(word: str, longest: int) -> list[str]:
    """Return every n-gram of up to ``longest`` characters of a word with a space at both ends."""
    padded = f" {word} "
    return [
        padded[start : start + length]
        for length in range(SHORTEST, longest + 1)
        for start in range(len(padded) - length + 1)
    ]


class HashedTerms:
    """Maps terms to columns by a hash that is the same on every machine."""

    def __init__(self, start: int, columns: int) -> None:
        self.start = start
        self.columns = columns

    def get(self, term: str) -> int:
        """Return the column of a term."""
        return self.start + zlib.crc32(term.encode()) % self.columns
