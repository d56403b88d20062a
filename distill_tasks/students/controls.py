"""Controls: what the gold labels alone would have given, without any teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.problems.classification import Problem, find_known
from distill_tasks.students.base import Student, TrainingSet
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

WORDS_ON_GOLD = "words-on-gold"
MAJORITY_CLASS = "majority-class"

WORD_RUNS = (1, 2)
"""Least and greatest length of the word n-grams that are terms."""

MEMORY_GB = 4.0
"""Memory that fitting `WordsOnGold` may take; the rarest terms are left out to stay below it.

With more than 86 million weights scikit-learn's L-BFGS crashes, since its sizes have 32 bits.
"""
SOLVER_COPIES = 34
"""Arrays of all weights in float64 that a fit holds at once, as measured (docs/decisions.md)."""

LOWEST_LOGIT = -30.0
"""The logit of a class without rows in train; a label of all rows gets the opposite one."""


def without_teacher(
    training_set: TrainingSet, student: Student, start: Checkpoint | None
) -> TrainingSet:
    """Return the training set of the same student without teacher: gold alone, as many steps.

    The gold rows are repeated to the number of rows of the training set, so that epochs, steps and
    schedule are the same; they are not repeated for a student that sees all rows in every step.
    ``start`` is the checkpoint that replaces the teacher's.
    """
    gold = training_set.rows.take(find_known(training_set.rows.gold))
    if student.in_steps:
        gold = gold.take(np.resize(np.arange(len(gold)), len(training_set.rows)))
    # With alpha at zero and gold on every row, the teacher's answers weigh nothing.
    nothing = np.zeros((len(gold), len(training_set.classes)), np.float32)
    answers = SoftLabels(nothing, training_set.classes, training_set.soft_labels.teacher)
    objective = Objective(temperature=1.0, alpha=0.0)
    return replace(training_set, rows=gold, soft_labels=answers, objective=objective, teacher=start)


class WordsOnGold:
    """TF-IDF and logistic regression on the gold rows: the baseline that a teacher must beat."""

    about: ClassVar[str] = "TF-IDF and logistic regression on gold"

    def __init__(self, train: Split, classes: int, problem: Problem) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        limit = find_limit(train, classes, problem)
        most = None if limit is None else limit.terms
        self.vectorizer = TfidfVectorizer(
            ngram_range=WORD_RUNS, sublinear_tf=True, max_features=most
        )
        self.classes = classes
        features = self.vectorizer.fit_transform(train.texts)
        targets = [train.gold] if problem == "single_label" else list(train.gold.T)
        self.models = [_fit(features, target) for target in targets]
        self.always = train.rows_per_class(classes) == len(train)
        self.problem = problem

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes), very low for classes that train lacks."""
        features = self.vectorizer.transform(texts)
        values = np.where(self.always, -LOWEST_LOGIT, LOWEST_LOGIT).astype(np.float32)
        values = np.tile(values, (len(texts), 1))
        if self.problem == "single_label":
            (model,) = self.models
            assert model is not None  # `check` refuses train with one class
            values[:, model.classes_] = model.predict_log_proba(features)
        else:
            for number, model in enumerate(self.models):
                if model is not None:
                    values[:, number] = model.decision_function(features)
        return np.maximum(values, LOWEST_LOGIT)


class MajorityClass:
    """Answers every text with the most frequent class of gold."""

    about: ClassVar[str] = "the most frequent class of gold, whatever the text"

    def __init__(self, train: Split, classes: int, problem: Problem) -> None:
        share = (train.rows_per_class(classes) + 0.5) / (len(train) + 1)
        odds = np.log(share) if problem == "single_label" else np.log(share / (1 - share))
        self.row = odds.astype(np.float32)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the same logits (rows, classes) for every text."""
        return np.tile(self.row, (len(texts), 1))


CONTROLS: dict[str, type[WordsOnGold | MajorityClass]] = {
    WORDS_ON_GOLD: WordsOnGold,
    MAJORITY_CLASS: MajorityClass,
}
"""The controls that are not students trained without the teacher."""


def has_words(train: Split) -> bool:
    """Return whether any text has a word of two characters or more, as `WordsOnGold` needs."""
    from sklearn.feature_extraction.text import CountVectorizer

    return any(map(CountVectorizer().build_tokenizer(), train.texts))


def has_words_on_gold(train: Split) -> bool:
    """Return whether there is gold with words in it, for `WordsOnGold` to learn from."""
    return train.has_gold and has_words(train)


@dataclass(frozen=True)
class Limit:
    """How many of the terms in the gold rows `WordsOnGold` reads."""

    terms: int
    found: int

    def __str__(self) -> str:
        return (
            f"{WORDS_ON_GOLD} reads the {self.terms:,} most frequent of {self.found:,} terms, as "
            f"fitting it may take {MEMORY_GB:g} GB of memory: with all it might be better"
        )


def find_limit(train: Split, classes: int, problem: Problem) -> Limit | None:
    """Return how many terms of train `WordsOnGold` reads, or None if it reads all of them."""
    from sklearn.feature_extraction.text import CountVectorizer

    if problem == "multi_label":  # one fit after the other, of which only the weights stay
        arrays = SOLVER_COPIES + classes
    else:
        arrays = SOLVER_COPIES * (classes if classes > 2 else 1)
    terms = int(MEMORY_GB * 1e9 / (8 * arrays))
    counter = CountVectorizer(ngram_range=WORD_RUNS)
    words = sum(map(len, map(counter.build_tokenizer(), train.texts)))
    if WORD_RUNS[1] * words <= terms:
        return None  # even if all words were distinct
    found = len(counter.fit(train.texts).vocabulary_)
    return Limit(terms, found) if found > terms else None


def _fit(features: csr_matrix, target: NDArray[np.int64]) -> LogisticRegression | None:
    """Return a fitted model, or None if the target is constant."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(target)) < 2:
        return None
    return LogisticRegression(C=30, max_iter=2000).fit(features, target)
