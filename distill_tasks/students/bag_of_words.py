"""Student family ``bag_of_words``: TF-IDF of words and word pairs with one linear layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from distill_tasks.problem import find_known, log_probabilities, probabilities, to_decisions
from distill_tasks.settings import Spans, StudentSettings
from distill_tasks.students.folder import describe_model
from distill_tasks.students.lesson import Lesson
from distill_tasks.weighted_metrics import kl_divergence

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from distill_tasks.training import Curve

WEIGHT_DECAY = 1e-6
"""Ridge penalty on the linear layer, per weight."""
ITERATIONS = 50
"""L-BFGS stops here; going on fits the transfer rows and loses accuracy (docs/decisions.md)."""


class BagOfWordsStudent(StudentSettings):
    """TF-IDF features and a linear layer that learns the teacher's soft labels."""

    size_field: ClassVar[str] = "max_features"
    in_steps: ClassVar[bool] = False

    family: Literal["bag_of_words"] = Field("bag_of_words", description="The family of students.")
    max_features: Annotated[PositiveInt, Spans()] = Field(
        50_000, description="Most frequent terms kept; a list spans the grid."
    )
    ngrams: Annotated[PositiveInt, Spans()] = Field(
        2, description="Longest run of words that is one term; a list spans the grid."
    )


def train(config: BagOfWordsStudent, lesson: Lesson, folder: Path) -> list[Curve]:
    """Fit the student into ``folder`` as numpy weights and return its one-point curve."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, config.ngrams),
        max_features=config.max_features,
        sublinear_tf=True,
        dtype=np.float32,
    )
    features = vectorizer.fit_transform(lesson.rows.texts)
    weights, bias, loss = fit_linear(features, lesson)
    np.savez(
        folder / "weights.npz",
        idf=vectorizer.idf_.astype(np.float32),
        output=weights.astype(np.float32),
        output_bias=bias.astype(np.float32),
    )
    terms = json.dumps(vectorizer.get_feature_names_out().tolist(), ensure_ascii=False)
    (folder / "vocabulary.json").write_text(terms, encoding="utf-8")
    describe_model(folder, "bag_of_words", lesson, ngrams=config.ngrams)
    return [{"epoch": 1, "step": 1, "train/loss": loss}]


def fit_linear(
    features: csr_matrix, lesson: Lesson
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Lower the distillation loss of a linear layer by L-BFGS, stopped early; it is convex.

    ``features`` is (rows, terms); returns weights (terms, classes), bias (classes,) and the loss.
    """
    from scipy.optimize import minimize

    classes, terms = len(lesson.classes), features.shape[1]
    by_term = features.T.tocsr()

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(terms + 1, classes)
        scores = features @ weights[:-1].astype(np.float32) + weights[-1]
        loss, slope = loss_and_slope(scores, lesson)
        decay = WEIGHT_DECAY * weights
        decay[-1] = 0
        gradient = np.vstack([by_term @ slope.astype(np.float32), slope.sum(axis=0)]) + decay
        return loss + 0.5 * float((decay * weights).sum()), gradient.ravel()

    start = np.zeros((terms + 1) * classes)
    limit = {"maxiter": ITERATIONS}
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=limit)
    weights = found.x.reshape(terms + 1, classes)
    return weights[:-1], weights[-1], float(found.fun)


def loss_and_slope(
    logits: NDArray[np.float64], lesson: Lesson
) -> tuple[float, NDArray[np.float64]]:
    """Return the distillation loss of logits (rows, classes) and its derivative by the logits.

    The same loss as `losses.distillation_loss`, without torch. With p for softmax or sigmoid,
    T·(p(z/T) − p(t/T)) is the derivative of T²·KL, w·(p(z) − y) that of the cross-entropy; both
    are means over the labels where there are several.
    """
    temperature, rows, problem = lesson.temperature, len(logits), lesson.problem
    gold, teacher = lesson.rows.gold, lesson.soft_labels.logits
    known = find_known(gold)
    alpha = np.where(known, lesson.alpha, 1.0)
    soft = temperature**2 * kl_divergence(logits / temperature, teacher / temperature, problem)
    soft_slope = temperature * (
        probabilities(logits, problem, temperature) - probabilities(teacher, problem, temperature)
    )
    hard, hard_slope = _gold_loss_and_slope(logits, lesson, known)
    scale = rows if problem == "single_label" else rows * logits.shape[1]
    loss = float((alpha * soft + (1 - alpha) * hard).sum() / scale)
    slope = alpha[:, None] * soft_slope + (1 - alpha)[:, None] * hard_slope
    return loss, slope / scale


def _gold_loss_and_slope(
    logits: NDArray[np.float64], lesson: Lesson, known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weighted cross-entropy (rows,) and its slope, zero where gold is absent."""
    gold = to_decisions(np.maximum(lesson.rows.gold, 0), logits.shape[1])
    ones = np.ones(logits.shape[1]) if lesson.class_weights is None else lesson.class_weights
    log_yes = log_probabilities(logits, lesson.problem)
    weights = np.where(gold, ones, 0.0)
    loss, slope = -(weights * log_yes).sum(axis=1), np.exp(log_yes)
    if lesson.problem == "single_label":
        slope = weights.sum(axis=1, keepdims=True) * (slope - gold)
    else:
        loss -= (~gold * log_probabilities(-logits, lesson.problem)).sum(axis=1)
        slope = (weights + ~gold) * slope - weights
    return loss * known, slope * known[:, None]
