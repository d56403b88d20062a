"""The model as it is served, opened from a folder, without importing the rest of this project.

A folder holds ``model.json`` (runtime, classes, number of tokens) and the weights. There are four
runtimes: ``transformers`` needs torch and transformers, ``onnx`` numpy, onnxruntime and tokenizers,
``static`` numpy and tokenizers, ``bag_of_words`` numpy alone. OMP_NUM_THREADS limits the threads of
all of them. On the command line: ``python served_model.py FOLDER "some text"``. The file
``served_text.py`` must lie beside this one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

if TYPE_CHECKING or __package__:
    from . import served_text
else:  # run as a script
    import served_text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

ABOUT = "model.json"
GRAPH = "model.onnx"


@dataclass(frozen=True)
class Answer:
    """The model's answer to one text."""

    label: str
    """The class; in a multi-label problem all that apply, joined by ``|``."""
    confidence: float
    """The estimated probability that the whole answer is right."""
    probabilities: dict[str, float]
    abstain: bool
    """Whether the confidence is too low for the configured precision."""


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
        self.fields: tuple[str, ...] = tuple(about.get("fields", ()))
        self.template: str = about.get("template", "")

    @abstractmethod
    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes), before the calibration temperature."""

    def join(self, cells: Mapping[str, Any]) -> str:
        """Return the text that a row's fields make up; None and NaN count as empty.

        Raises ValueError for a row that lacks a field, or has one that is not text.
        """
        absent = [name for name in self.fields if name not in cells]
        if absent:
            raise ValueError(f"The field {absent[0]!r} is missing. Give {list(self.fields)}.")
        there = {name: cells[name] for name in self.fields}
        given = {name: "" if cell is None or cell != cell else cell for name, cell in there.items()}
        wrong = [name for name, cell in given.items() if not isinstance(cell, str)]
        if wrong:
            raise ValueError(f"The field {wrong[0]!r} is {given[wrong[0]]!r}, not text.")
        return re.sub(r"{([^{}]*)}", lambda found: given[found[1]], self.template).strip()

    def answer(
        self,
        texts: Sequence[str | Mapping[str, Any]],
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> list[Answer]:
        """Return the answer to each text: label, confidence, class probabilities, abstention.

        A model that was trained on several fields takes rows with these by name too. With ``top_k``
        the probabilities are those of so many classes, the likeliest first. With ``threshold`` the
        model abstains below this confidence instead of its own. Raises ValueError for anything that
        is not a list of texts, and for a ``top_k`` or ``threshold`` that makes no sense.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}. Give the number of classes to list, 1 or more.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}. Give a confidence from 0 to 1.")
        served_text.check_list(texts)
        if self.fields:
            texts = [self.join(row) if isinstance(row, Mapping) else row for row in texts]
        served_text.check_texts(texts)
        scores = self.logits(cast("Sequence[str]", texts)) / np.float32(self.temperature)
        several = self.problem == "multi_label"
        read_off = self._read_off_several if several else self._read_off
        answer_from = self.answer_from if threshold is None else threshold
        answers = []
        for values in (sigmoid(scores) if several else softmax(scores)).tolist():
            label, sure = read_off(values)
            answers.append(Answer(label, sure, self._by_class(values, top_k), sure < answer_from))
        return answers

    def _by_class(self, values: list[float], top_k: int | None) -> dict[str, float]:
        by_class = dict(zip(self.classes, values, strict=True))
        if top_k is None:
            return by_class
        likeliest = sorted(by_class, key=by_class.__getitem__, reverse=True)
        return {name: by_class[name] for name in likeliest[:top_k]}

    def _read_off(self, values: list[float]) -> tuple[str, float]:
        """Return the label of a text, and the probability that it is right."""
        best = max(range(len(values)), key=values.__getitem__)
        return self.classes[best], values[best]

    def _read_off_several(self, values: list[float]) -> tuple[str, float]:
        """Return the labels of a text, and the probability that all of them are right."""
        there = [value >= limit for value, limit in zip(values, self.thresholds, strict=True)]
        names = [name for name, is_there in zip(self.classes, there, strict=True) if is_there]
        sure = 1.0
        for value, is_there in zip(values, there, strict=True):
            sure *= value if is_there else 1 - value
        return "|".join(names), sure


class TokenModel(ServedModel):
    """A model that reads token ids."""

    tokenizer: Tokenizer
    padding: int = 0
    """The token that replaces a text without tokens."""
    special_tokens: ClassVar[bool] = True
    """Whether the special tokens that the tokenizer adds around a text are read too."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        found = served_text.read_ids(self.tokenizer, texts, self.special_tokens)
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
        served_text.bound(self.tokenizer, about["max_length"], tokenizer.truncation_side)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, revision=revision, trust_remote_code=False, dtype="float32"
        ).eval()
        self.device = "cpu"

    def move_to(self, device: str) -> None:
        """Move the model to another device."""
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

        self.tokenizer = served_text.open_tokenizer(folder, about["max_length"])
        self.padding = about["padding"]
        options = SessionOptions()
        bound = re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", ""))
        options.intra_op_num_threads = int(bound[0]) if bound else 0  # 0: onnxruntime decides
        providers = ["CPUExecutionProvider"]
        self.session = InferenceSession(str(folder / GRAPH), options, providers=providers)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes).

        Texts run one at a time: this was faster than padded batches (docs/decisions.md), and int8
        scales, which depend on the whole batch, then never depend on the other texts.
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
        self.tokenizer = served_text.open_tokenizer(folder, about["max_length"])
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


class BagOfWordsModel(ServedModel):
    """TF-IDF of word n-grams and of character n-grams inside words, then one layer or two."""

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
        self.words: dict[str, int] | served_text.HashedTerms
        self.runs: dict[str, int] | served_text.HashedTerms
        if about.get("hashed"):
            columns = len(self.first) // (2 if self.characters else 1)
            self.words = served_text.HashedTerms(0, columns)
            self.runs = served_text.HashedTerms(columns, columns)
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

    def _read(self, text: str) -> NDArray[np.float32]:
        """Return the first layer's output (outputs,) for a text in lower case."""
        values = self._weigh(served_text.find_words(text, self.longest), self.words)
        if self.characters:
            inside = (served_text.find_characters(word, self.characters) for word in text.split())
            values += self._weigh(chain.from_iterable(inside), self.runs)
        values += self.first_bias
        return values

    def _weigh(
        self, terms: Iterable[str], columns_of: dict[str, int] | served_text.HashedTerms
    ) -> NDArray[np.float32]:
        """Return the sum of the first layer's weights, each multiplied by its term's TF-IDF."""
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
    """Open the model in a folder."""
    about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
    return RUNTIMES[about["runtime"]](Path(folder), about)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the class probabilities (rows, classes) of logits."""
    powers: NDArray[np.float32] = np.exp(
        logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    )
    total: NDArray[np.float32] = powers.sum(axis=1, keepdims=True)
    return powers / total


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the independent probability of each class (rows, classes) from logits."""
    small = np.exp(-np.abs(logits))
    values: NDArray[np.float32] = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    return values


if __name__ == "__main__":
    del sys.path[0]  # files in this folder must not hide modules of Python, such as select
    for answer in open_model(sys.argv[1]).answer(sys.argv[2:]):
        print(json.dumps(vars(answer)))
