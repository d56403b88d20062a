"""What teachers are made of: a function, a registered model, an author; all count class words."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from samples import CLASSES, FILLERS, WORDS, make_rows

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def by_words(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return probabilities (rows, classes) from how many words of each class a text has."""
    counts = [[sum(word in text for word in WORDS[name]) for name in CLASSES] for text in texts]
    weights = np.exp(np.array(counts, np.float64))
    return weights / weights.sum(axis=1, keepdims=True)


def judge(text: str, classes: Sequence[str]) -> list[float]:
    """Return the same for one text, for classes in any order, as a scripted endpoint asks."""
    (row,) = by_name([text])
    return [row[name] for name in classes]


def by_name(texts: Sequence[str]) -> list[dict[str, float]]:
    """Return the same as mappings of classes to probabilities."""
    return [dict(zip(CLASSES, row, strict=True)) for row in by_words(texts)]


def backwards(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the same with the classes in another order, which it names."""
    return by_words(texts)[:, ::-1]


backwards.classes = CLASSES[::-1]  # type: ignore[attr-defined]


ASKED: list[str] = []
"""The texts that `counted` was asked about."""


def counted(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the same, and remember which texts were asked about."""
    ASKED.extend(texts)
    return by_words(texts)


def nothing(texts: Sequence[str]) -> list[None]:
    """Return no answer to any text."""
    return [None for _ in texts]


def all_but_cats(texts: Sequence[str]) -> list[NDArray[np.float64] | None]:
    """Return the same, but no answer where a text is about cats."""
    return [None if row.argmax() == 0 else row for row in by_words(texts)]


def fit_words(seed: int = 1) -> Pipeline:
    """Return a scikit-learn model that knows the classes by words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = make_rows(90, seed=seed)
    return make_pipeline(CountVectorizer(), LogisticRegression()).fit(rows["text"], rows["label"])


def register_words(uri: str, folder: Path, name: str = "words", seed: int = 1) -> int:
    """Register the model of `fit_words` under the alias teacher; return its version."""
    import mlflow

    model, needs = fit_words(seed), ["scikit-learn"]  # MLflow would load the model to find out
    save = partial(mlflow.sklearn.save_model, model, pip_requirements=needs)
    return register(uri, folder, name, save)


def register(uri: str, folder: Path, name: str, save: Callable[[str], None]) -> int:
    """Register a model that ``save`` writes into a folder, under the alias teacher."""
    import mlflow

    client, path = mlflow.MlflowClient(uri, uri), folder / f"{name}-{uuid.uuid4().hex}"
    save(str(path))
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = int(client.create_model_version(name, path.as_uri()).version)
    client.set_registered_model_alias(name, "teacher", str(version))
    return version


def write(name: str, count: int, draw: random.Random) -> list[str]:
    """Return texts of a class as a scripted endpoint writes them, every other one twice."""
    texts: list[str] = []
    while len(texts) < count:
        words = [*draw.sample(WORDS[name], 2), *draw.sample(FILLERS, 6)]
        draw.shuffle(words)
        texts += [" ".join(words)] * draw.choice([1, 2])
    return texts[:count]
