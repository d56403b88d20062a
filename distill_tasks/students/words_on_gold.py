"""The cheap control as a student: TF-IDF and logistic regression on gold, served by numpy alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from distill_tasks.students.base import Student, TrainingSet
from distill_tasks.students.controls import LOWEST_LOGIT, WORD_RUNS, WORDS_ON_GOLD, WordsOnGold
from distill_tasks.students.folder import check_served, describe_model
from distill_tasks.training.curve import Curve
from distill_tasks.training.tokens import pick_rows


class WordsOnGoldStudent(Student):
    """`WordsOnGold` in the served form of a bag of words, so that it may be registered too."""

    size_field: ClassVar[str] = "family"

    family: Literal["words_on_gold"] = Field("words_on_gold", description="The cheap control.")

    @property
    def name(self) -> str:
        """The control's own name."""
        return WORDS_ON_GOLD

    @property
    def in_steps(self) -> bool:
        """False: it sees all rows at once."""
        return False

    @property
    def trains_in_seconds(self) -> bool:
        """True: it is linear."""
        return True

    def train(self, training_set: TrainingSet, folder: Path) -> list[Curve]:
        """Fit the regression on the gold rows into ``folder``; it has no curve."""
        rows, classes = training_set.rows, training_set.classes
        fitted = WordsOnGold(rows, len(classes), training_set.problem)
        weights = _weigh_terms(fitted)
        names = json.dumps(fitted.vectorizer.get_feature_names_out().tolist(), ensure_ascii=False)
        (folder / "vocabulary.json").write_text(names, encoding="utf-8")
        np.savez(folder / "weights.npz", allow_pickle=False, **weights)
        describe_model(
            folder,
            "bag_of_words",
            training_set.problem,
            classes,
            words=len(weights["idf"]),
            ngrams=WORD_RUNS[1],
            characters=0,
            hashed=False,
        )
        texts = [rows.texts[row] for row in pick_rows(rows.texts)]
        features = fitted.vectorizer.transform(texts).astype(np.float32)
        check_served(folder, texts, features @ weights["output"] + weights["output_bias"])
        return []


def _weigh_terms(fitted: WordsOnGold) -> dict[str, np.ndarray]:
    """Return the weights (terms, classes), bias (classes,) and IDF (terms,) of a bag of words.

    Of two classes the regression has one row of weights, for the second one. A class without rows
    has none.
    """
    terms = len(fitted.vectorizer.idf_)
    weights = np.zeros((terms, fitted.classes), np.float32)
    bias = np.where(fitted.always, -LOWEST_LOGIT, LOWEST_LOGIT).astype(np.float32)
    for number, model in enumerate(fitted.models):
        if model is None:
            continue
        if fitted.problem == "multi_label":
            weights[:, number], bias[number] = model.coef_[0], model.intercept_[0]
        elif len(model.classes_) == 2:
            first, second = model.classes_
            bias[first] = 0
            weights[:, second], bias[second] = model.coef_[0], model.intercept_[0]
        else:
            weights[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    idf = fitted.vectorizer.idf_.astype(np.float32)
    return {"output": weights, "output_bias": bias, "idf": idf}
