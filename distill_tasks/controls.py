"""Controls: what the gold labels alone would have given, without any teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from distill_tasks.corpus import Split

WORDS_ON_GOLD = "words-on-gold"


def fit_words_on_gold(train: Split, classes: int) -> WordsOnGold:
    """Fit TF-IDF and logistic regression on the gold rows: the baseline a teacher must beat."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=30, max_iter=2000),
    )
    pipeline.fit(train.texts, train.gold)
    return WordsOnGold(pipeline, classes)


class WordsOnGold:
    """The fitted baseline."""

    def __init__(self, pipeline: Pipeline, classes: int) -> None:
        self.pipeline = pipeline
        self.classes = classes

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return log-probabilities (rows, classes), very low for classes that train lacks."""
        values = np.full((len(texts), self.classes), -30, np.float32)
        known = self.pipeline.predict_log_proba(texts)
        values[:, self.pipeline.classes_] = np.maximum(known, -30)
        return values
