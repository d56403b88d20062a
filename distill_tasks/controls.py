"""Controls: what the gold labels alone would have given, without any teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from distill_tasks.problem import find_known
from distill_tasks.soft_labels import SoftLabels
from distill_tasks.students.lesson import Blend

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    from distill_tasks.corpus import Split
    from distill_tasks.problem import Problem
    from distill_tasks.settings import StudentSettings
    from distill_tasks.students.lesson import Lesson, TeacherModel

WORDS_ON_GOLD = "words-on-gold"
MAJORITY_CLASS = "majority-class"

LOWEST_LOGIT = -30.0
"""The logit of a class that train has no row of; of a label that all its rows have, the reverse."""


def without_teacher(lesson: Lesson, student: StudentSettings, start: TeacherModel | None) -> Lesson:
    """Return the lesson that the same student gets from the gold rows alone, for as many steps.

    The gold rows are repeated until they are as many as the lesson had, so that epochs, steps and
    schedule are the same; a student that sees all rows at once needs no repeating. ``start`` is
    what the student starts from in place of the teacher.
    """
    gold = lesson.rows.take(find_known(lesson.rows.gold))
    if student.in_steps:
        gold = gold.take(np.resize(np.arange(len(gold)), len(lesson.rows)))
    # With alpha at zero and gold on every row, the teacher's answers weigh nothing.
    nothing = np.zeros((len(gold), len(lesson.classes)), np.float32)
    answers = SoftLabels(nothing, lesson.classes, lesson.soft_labels.teacher)
    blend = Blend(temperature=1.0, alpha=0.0)
    return replace(lesson, rows=gold, soft_labels=answers, blend=blend, teacher=start)


class WordsOnGold:
    """TF-IDF and logistic regression on the gold rows: the baseline that a teacher must beat."""

    about: ClassVar[str] = "TF-IDF and logistic regression on gold"

    def __init__(self, train: Split, classes: int, problem: Problem) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
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
    """Says of every text what gold says most often."""

    about: ClassVar[str] = "the most frequent class of gold, whatever the text"

    def __init__(self, train: Split, classes: int, problem: Problem) -> None:
        share = (train.rows_per_class(classes) + 0.5) / (len(train) + 1)
        odds = np.log(share) if problem == "single_label" else np.log(share / (1 - share))
        self.row = odds.astype(np.float32)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the same logits (rows, classes) for every text."""
        return np.tile(self.row, (len(texts), 1))


def _fit(features: csr_matrix, target: NDArray[np.int64]) -> LogisticRegression | None:
    """Return a fitted model, or None where the target never changes."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(target)) < 2:
        return None
    return LogisticRegression(C=30, max_iter=2000).fit(features, target)
