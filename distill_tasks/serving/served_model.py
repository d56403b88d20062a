"""The model as it is served: a folder that answers texts, with nothing of this project imported.

A folder holds ``model.json`` (runtime, classes, tokens read) beside its weights. Four runtimes:
``transformers`` needs torch and transformers, ``onnx`` needs numpy, onnxruntime and tokenizers,
``static`` numpy and tokenizers, ``bag_of_words`` numpy alone. By hand:
``python served_model.py FOLDER "some text"``. OMP_NUM_THREADS bounds the threads of all of them.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

ABOUT = "model.json"
GRAPH = "model.onnx"
WORD = re.compile(r"\b\w\w+\b")
"""The words of a text: scikit-learn's default token pattern."""

CHARACTERS_PER_TOKEN = 16
"""A text with more of them for each token that is read is shortened before it is tokenised."""
MARGIN = 64
"""Characters, and the rest of their word, beside a cut from which no token is read."""
BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
"""Where a text may be cut: at a space that is alone."""
LOCAL = {
    *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
    *("Precompiled", "Prepend", "Strip", "StripAccents", "Digits", "Punctuation"),
}
"""Parts of tokenizers that look no further than the next word."""
SPACES = {" {2,}", r"\s+"}
"""Patterns of runs of spaces."""
WORDS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}", r"\p{N}{1,3}")
}
"""Patterns of the words of Qwen's and Llama's tokenizers."""


@dataclass(frozen=True)
class Answer:
    """What the model says of one text."""

    label: str
    """The class; of several labels all that are there, joined by ``|``."""
    confidence: float
    """How likely the whole answer is right."""
    probabilities: dict[str, float]
    abstain: bool
    """Whether the model is too unsure to be answered for, by the precision asked of it."""


class ServedModel(ABC):
    """Answers texts from a folder; `open_model` picks the runtime."""

    def __init__(self, folder: Path | str, about: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.classes: list[str] = about["classes"]
        self.problem: str = about.get("problem", "single_label")
        calibration = about.get("calibration", {})
        self.temperature: float = calibration.get("temperature", 1.0)
        self.thresholds: list[float] = calibration.get("thresholds") or [0.5] * len(self.classes)
        self.answer_from: float = calibration.get("answer_from") or 0.0

    @abstractmethod
    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes), before the calibration temperature."""

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Return label, confidence, class probabilities and doubt about each text.

        Raises ValueError for anything that is not text.
        """
        if isinstance(texts, str):
            raise ValueError("One text was given alone. Give a list of strings.")
        if not isinstance(texts, Collection):
            raise ValueError(f"{texts!r} is no list of texts. Give a list of strings.")
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"Row {row} is {text!r}, not text. Give a list of strings.")
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"Row {row} holds half a character (a lone surrogate). Mend it.")
        scores = self.logits(texts) / np.float32(self.temperature)
        if self.problem == "multi_label":
            return [self._read_off_several(row) for row in sigmoid(scores)]
        return [self._read_off(row) for row in softmax(scores)]

    def _read_off(self, probabilities: NDArray[np.float32]) -> Answer:
        values = probabilities.tolist()
        best = max(range(len(values)), key=values.__getitem__)
        by_class = dict(zip(self.classes, values, strict=True))
        return Answer(self.classes[best], values[best], by_class, values[best] < self.answer_from)

    def _read_off_several(self, probabilities: NDArray[np.float32]) -> Answer:
        values = probabilities.tolist()
        by_class = dict(zip(self.classes, values, strict=True))
        there = [value >= limit for value, limit in zip(values, self.thresholds, strict=True)]
        label = "|".join(
            name for name, is_there in zip(self.classes, there, strict=True) if is_there
        )
        sure = 1.0
        for value, is_there in zip(values, there, strict=True):
            sure *= value if is_there else 1 - value
        return Answer(label, sure, by_class, sure < self.answer_from)


class TokenModel(ServedModel):
    """A model that reads token ids."""

    tokenizer: Tokenizer
    padding: int = 0
    """The token that stands for a text without any."""
    special_tokens: ClassVar[bool] = True
    """Whether those that the tokenizer puts around a text are read too."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what is read of each text."""
        found = read_ids(self.tokenizer, texts, self.special_tokens)
        return [ids or [self.padding] for ids in found]


class TransformersModel(TokenModel):
    """A transformers sequence classifier in float32."""

    def __init__(self, folder: Path | str, about: dict[str, Any]) -> None:
        super().__init__(folder, about)
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        revision = about.get("revision")
        tokenizer = AutoTokenizer.from_pretrained(
            folder, revision=revision, trust_remote_code=False
        )
        self.padding = tokenizer.pad_token_id or 0
        self.pads_left = tokenizer.padding_side == "left"
        self.tokenizer = tokenizer.backend_tokenizer
        bound(self.tokenizer, about["max_length"], tokenizer.truncation_side)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, revision=revision, trust_remote_code=False, dtype="float32"
        ).eval()
        self.device = "cpu"

    def move_to(self, device: str) -> None:
        """Answer on another device from now on."""
        self.model.to(device)
        self.device = device

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes)."""
        import torch

        if not len(texts):
            return np.empty((0, len(self.classes)), np.float32)
        rows = self.token_ids(texts)
        longest = max(map(len, rows))
        fills = [[self.padding] * (longest - len(row)) for row in rows]
        pairs = list(zip(fills, rows, strict=True))
        padded = [fill + row if self.pads_left else row + fill for fill, row in pairs]
        ids = torch.tensor(padded, device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        places = torch.arange(longest, device=self.device)
        if self.pads_left:
            places = places.flip(0)
        mask = (places < lengths[:, None]).long() if any(fills) else None
        with torch.inference_mode():
            values: NDArray[np.float32] = self.model(ids, attention_mask=mask).logits.cpu().numpy()
        return values


class OnnxModel(TokenModel):
    """A transformers sequence classifier as an ONNX graph, in float32 or int8."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        super().__init__(folder, about)
        from onnxruntime import InferenceSession, SessionOptions

        self.tokenizer = open_tokenizer(folder, about["max_length"])
        self.padding = about["padding"]
        options = SessionOptions()
        bound = re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", ""))
        options.intra_op_num_threads = int(bound[0]) if bound else 0  # 0: as many as it likes
        providers = ["CPUExecutionProvider"]
        self.session = InferenceSession(str(folder / GRAPH), options, providers=providers)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes).

        Texts run one at a time: that was faster than padded batches (docs/decisions.md), and the
        int8 scales, taken from all that runs at once, then never depend on a text's neighbours.
        """
        values = np.empty((len(texts), len(self.classes)), np.float32)
        for row, read in enumerate(self.token_ids(texts)):
            ids = np.array([read])
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            values[row] = self.session.run(["logits"], given)[0][0]
        return values


class StaticModel(TokenModel):
    """The mean of token embeddings, then a small network."""

    special_tokens = False

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        super().__init__(folder, about)
        self.tokenizer = open_tokenizer(folder, about["max_length"])
        weights = np.load(folder / "weights.npz", allow_pickle=False)
        self.embeddings = weights["embeddings"].astype(np.float32)
        self.hidden, self.hidden_bias = weights["hidden"], weights["hidden_bias"]
        self.output, self.output_bias = weights["output"], weights["output_bias"]

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes)."""
        pooled = np.empty((len(texts), self.embeddings.shape[1]), np.float32)
        for row, ids in enumerate(self.token_ids(texts)):
            pooled[row] = self.embeddings[ids].mean(axis=0)
        hidden = np.maximum(pooled @ self.hidden + self.hidden_bias, 0)
        values: NDArray[np.float32] = hidden @ self.output + self.output_bias
        return values


class HashedTerms:
    """Gives terms the columns of their hash, which is the same wherever it is taken."""

    def __init__(self, start: int, columns: int) -> None:
        self.start = start
        self.columns = columns

    def get(self, term: str) -> int:
        """Return the column of a term."""
        return self.start + zlib.crc32(term.encode()) % self.columns


class BagOfWordsModel(ServedModel):
    """TF-IDF of runs of words, another of characters inside words, then one layer or two."""

    shortest: ClassVar[int] = 3
    """Characters in the shortest run of them that is a term."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        super().__init__(folder, about)
        self.longest: int = about["ngrams"]
        self.characters: int = about.get("characters", 0)
        weights = np.load(folder / "weights.npz", allow_pickle=False)
        self.output, self.output_bias = weights["output"], weights["output_bias"]
        self.deep = "hidden" in weights
        self.first, self.first_bias = self.output, self.output_bias
        if self.deep:
            self.first, self.first_bias = weights["hidden"], weights["hidden_bias"]
        self.words: dict[str, int] | HashedTerms
        self.runs: dict[str, int] | HashedTerms
        if about.get("hashed"):
            columns = len(self.first) // (2 if self.characters else 1)
            self.words, self.runs = HashedTerms(0, columns), HashedTerms(columns, columns)
            self.idf = np.ones(len(self.first), np.float32)
        else:
            terms: list[str] = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
            columns = about.get("words", len(terms))
            self.words = {term: column for column, term in enumerate(terms[:columns])}
            self.runs = {term: column for column, term in enumerate(terms[columns:], columns)}
            self.idf = weights["idf"]

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes)."""
        values = np.empty((len(texts), len(self.classes)), np.float32)
        for row, text in enumerate(texts):
            scores = self._read(text.lower())
            if self.deep:
                scores = np.maximum(scores, 0) @ self.output + self.output_bias
            values[row] = scores
        return values

    @staticmethod
    def find_words(text: str, longest: int) -> list[str]:
        """Return every run of up to so many words of a text in lower case."""
        words = WORD.findall(text)
        terms = list(words)
        for length in range(2, longest + 1):
            shifted = (words[start:] for start in range(length))
            terms.extend(map(" ".join, zip(*shifted, strict=False)))
        return terms

    @staticmethod
    def find_characters(word: str, longest: int) -> list[str]:
        """Return every run of up to so many characters of a word with a space at both ends."""
        padded = f" {word} "
        return [
            padded[start : start + length]
            for length in range(BagOfWordsModel.shortest, longest + 1)
            for start in range(len(padded) - length + 1)
        ]

    def _read(self, text: str) -> NDArray[np.float32]:
        """Return what the first layer says of a text in lower case."""
        values = self._weigh(self.find_words(text, self.longest), self.words)
        if self.characters:
            inside = (self.find_characters(word, self.characters) for word in text.split())
            values += self._weigh(chain.from_iterable(inside), self.runs)
        values += self.first_bias
        return values

    def _weigh(
        self, terms: Iterable[str], columns_of: dict[str, int] | HashedTerms
    ) -> NDArray[np.float32]:
        """Return the sum of the first layer's weights, each by the TF-IDF of its term."""
        find = columns_of.get
        known = Counter(column for term in terms if (column := find(term)) is not None)
        if not known:
            return np.zeros_like(self.first_bias)
        columns = np.fromiter(known.keys(), np.int64, len(known))
        counts = np.fromiter(known.values(), np.float32, len(known))
        tfidf = (1 + np.log(counts)) * self.idf[columns]
        values: NDArray[np.float32] = (tfidf / np.sqrt(tfidf @ tfidf)) @ self.first[columns]
        return values


RUNTIMES: dict[str, type[ServedModel]] = {
    "transformers": TransformersModel,
    "onnx": OnnxModel,
    "static": StaticModel,
    "bag_of_words": BagOfWordsModel,
}


def open_model(folder: Path | str) -> ServedModel:
    """Open the model that a folder holds."""
    about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
    return RUNTIMES[about["runtime"]](Path(folder), about)


def open_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Open the tokenizer of a folder, which cuts texts to ``max_length`` tokens on its own side."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bound(tokenizer, max_length, (tokenizer.truncation or {}).get("direction", "right"))
    return tokenizer


def bound(tokenizer: Tokenizer, max_length: int, side: str) -> None:
    """Let a tokenizer cut texts to so many tokens, on the ``left`` or ``right``, and not pad."""
    tokenizer.enable_truncation(max_length, direction=side)
    tokenizer.no_padding()


def read_ids(tokenizer: Tokenizer, texts: Sequence[str], special_tokens: bool) -> list[list[int]]:
    """Return the token ids of each text, at most as many as the tokenizer is bound to."""
    short = [shorten(tokenizer, text) for text in texts]
    encodings = tokenizer.encode_batch_fast(short, add_special_tokens=special_tokens)
    return [encoding.ids for encoding in encodings]


def shorten(tokenizer: Tokenizer, text: str) -> str:
    """Return the part of a long text that holds all the tokens that are read of it.

    A whole text of ten megabytes takes ten seconds and a gigabyte. It is cut at a space, and only
    where the tokenizer looks at one word at a time and no token that is read lies near the cut: so
    what is read stays the same. Where that is not sure the text is returned as it is.
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
    """Return so many characters of a text, or None where more of it may be read."""
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
    """Return how many tokens are read, and whether they are the last ones of a text."""
    bound_to: dict[str, Any] = tokenizer.truncation or {}
    return bound_to["max_length"], bound_to["direction"] == "left"


def reads_words(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens of a word depend on no word but its neighbours."""
    cleans, splits = _parts_of(tokenizer.normalizer), _parts_of(tokenizer.pre_tokenizer)
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        all(_is_local(part) for part in cleans)
        and all(_splits_words(part) or part["type"] in LOCAL for part in splits)
        and any(_splits_words(part) for part in splits)
        and not any(character.isspace() for token in added for character in token.content)
    )


def _parts_of(step: Normalizer | PreTokenizer | None) -> list[dict[str, Any]]:
    """Return what a step of a tokenizer consists of, as its file describes it."""
    if step is None:
        return []
    described: dict[str, Any] = json.loads(step.__getstate__())
    parts: list[dict[str, Any]] = [described]
    return described.get("normalizers") or described.get("pretokenizers") or parts


def _is_local(part: dict[str, Any]) -> bool:
    """Return whether a part of a normalizer looks at a character, or at a run of spaces."""
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


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the class probabilities (rows, classes) of logits."""
    powers: NDArray[np.float32] = np.exp(
        logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    )
    total: NDArray[np.float32] = powers.sum(axis=1, keepdims=True)
    return powers / total


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability of each class (rows, classes) on its own."""
    small = np.exp(-np.abs(logits))
    values: NDArray[np.float32] = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    return values


if __name__ == "__main__":
    del sys.path[0]  # this folder's files must not hide Python's own, such as select
    for answer in open_model(sys.argv[1]).answer(sys.argv[2:]):
        print(json.dumps(vars(answer)))
