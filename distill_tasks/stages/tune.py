"""Stages ``tune`` and ``learning_curve``: the cheapest student tries settings, and more rows."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from distill_tasks.config import AUTO
from distill_tasks.core.digests import digest
from distill_tasks.problems.classification import Logits
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.outcomes import Comparison, Tuning
from distill_tasks.results.run import OpenRun, Run, cheapest, make_training_set, take
from distill_tasks.scoring.calibration import Calibration, fit_temperature
from distill_tasks.scoring.intervals import estimate, plain_value
from distill_tasks.scoring.learning_curve import LearningCurve, LearningPoint
from distill_tasks.scoring.predictions import answer_sorted
from distill_tasks.scoring.scorecard import EvalSplit, Predictions, quality_statistic
from distill_tasks.scoring.statistics import difference, kl_divergence, negative_log_likelihood
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.stage import stage
from distill_tasks.students import Student
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.loss_settings import LossConfig
from distill_tasks.training.objective import Objective

logger = logging.getLogger("potstill")

CODE_VERSION = 3
"""Raised when a change of the code changes what is found."""

TEMPERATURES = (1.0, 2.0, 4.0)
"""Compared, beside the teacher's own fitted temperature, where T is left to the run."""
ALPHAS = (0.5, 0.9, 1.0)
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of the transfer rows on the learning curve; each point doubles the one before."""
FEWEST_TRANSFER_ROWS = 80


@stage("tune objective")
def tune(run: Run) -> Tuning:
    """Choose temperature and α."""
    return tune_objective(run.open())


def tune_objective(run: OpenRun) -> Tuning:
    """Return temperature and α as configured, or the best of a few on the cheapest student."""
    config = run.config
    if AUTO not in (config.loss.temperature, config.loss.alpha):
        return Tuning(config.loss.usual_objective, "as configured", [], reused=False)
    student = cheapest(config)
    loss = config.loss.model_dump(exclude={"suspicious_weight"})  # it is in the lesson's digest
    settings = [student.model_dump(), loss, config.select.metric, config.seed]
    key = digest(CODE_VERSION, settings, run.corpus.digest, run.lesson_digest)
    found, kept = run.store.remember(
        "blends", key, Tuning, lambda: _compare_objectives(run, student)
    )
    return replace(found, reused=kept)


def _compare_objectives(run: OpenRun, student: Student) -> Tuning:
    loss, eval_split = run.config.loss, Evaluator(run, "validation").eval_split
    fitted = eval_split.teacher.calibration.temperature
    training_set = make_training_set(run, run.config.seed)

    def compare(objective: Objective) -> Comparison:
        logger.info(
            "tune: %s with T = %.3g, α = %.3g",
            student.name,
            objective.temperature,
            objective.alpha,
        )
        weighed = replace(training_set, objective=objective)
        return _compare(eval_split, objective, _ask_trained(student, weighed, eval_split))

    compared = _search(loss, fitted, compare)
    best = min(compared, key=lambda found: found.loss)
    measure = "NLL" if eval_split.gold is not None else "divergence from the teacher"
    reason = (
        f"least validation {measure}, {best.loss:.4f}, of {len(compared)} compared on "
        f"{student.name}; the teacher's own fitted temperature is {fitted:.2g}"
    )
    objective = loss.objective(best.temperature, best.alpha)
    return Tuning(objective, reason, compared, reused=False)


@stage("draw the learning curve")
def learning_curve(run: Run) -> LearningCurve:
    """Draw the learning curve."""
    return draw_learning_curve(run.open())


def draw_learning_curve(run: OpenRun) -> LearningCurve:
    """Train the cheapest student on growing parts of the transfer rows, and score it on held-out.

    No choice rests on the curve, so held-out may draw it.
    """
    config = run.config
    student, transfer = cheapest(config), len(run.corpus.splits.get("transfer", ()))
    if transfer < FEWEST_TRANSFER_ROWS:
        return LearningCurve(student.name, [], None, reused=False)
    settings = [student.model_dump(), asdict(run.objective), config.select.metric]
    weights = [config.loss.balance_classes, config.seed]
    key = digest(CODE_VERSION, settings, weights, run.corpus.digest, run.lesson_digest)
    curve, kept = run.store.remember(
        "curves", key, LearningCurve, lambda: _train_on_parts(run, student)
    )
    return replace(curve, reused=kept)


def _train_on_parts(run: OpenRun, student: Student) -> LearningCurve:
    eval_split, seed = Evaluator(run, "held_out").eval_split, run.config.seed
    training_set = make_training_set(run, seed)
    gold_rows, transfer = (len(run.corpus.splits[name]) for name in ("train", "transfer"))
    order = np.random.default_rng(seed).permutation(transfer)
    sizes = [round(share * transfer) for share in SHARES]
    statistics = {}
    for size in sizes:
        logger.info("learning curve: %s with %d transfer rows", student.name, size)
        part = take(training_set, np.r_[:gold_rows, gold_rows + np.sort(order[:size])])
        asked = Predictions(_ask_trained(student, part, eval_split), Calibration())
        statistics[str(size)] = quality_statistic(eval_split, [asked])
    last, before = str(sizes[-1]), str(sizes[-2])
    gain = {"gain": difference(statistics[last], statistics[before])}
    figures = estimate(statistics | gain, len(eval_split.split), seed)
    points = [LearningPoint(size, figures[str(size)]) for size in sizes]
    return LearningCurve(student.name, points, figures["gain"], reused=False)


def _search(
    loss: LossConfig, fitted: float, compare: Callable[[Objective], Comparison]
) -> list[Comparison]:
    """Compare temperatures first, then α at the best of them."""
    temperature, alpha = loss.temperature, loss.alpha
    first_alpha = loss.usual_objective.alpha
    temperatures = (
        sorted({*TEMPERATURES, round(fitted, 2)}) if isinstance(temperature, str) else [temperature]
    )
    compared = [compare(loss.objective(each, first_alpha)) for each in temperatures]
    best = min(compared, key=lambda found: found.loss).temperature
    if isinstance(alpha, str):
        compared += [compare(loss.objective(best, each)) for each in ALPHAS if each != first_alpha]
    return compared


def _compare(eval_split: EvalSplit, objective: Objective, logits: Logits) -> Comparison:
    if eval_split.gold is None:
        calibration = Calibration()
        loss = kl_divergence(logits, eval_split.teacher.logits, eval_split.problem).mean()
    else:
        calibration = Calibration(fit_temperature(logits, eval_split.gold, eval_split.problem))
        likelihood = negative_log_likelihood(
            logits, eval_split.gold, eval_split.problem, calibration.temperature
        )
        loss = likelihood.mean()
    quality = quality_statistic(eval_split, [Predictions(logits, calibration)])
    value = plain_value(quality, len(logits))
    return Comparison(objective.temperature, objective.alpha, float(loss), value)


def _ask_trained(student: Student, training_set: TrainingSet, eval_split: EvalSplit) -> Logits:
    """Train a student, return its predictions for a split, and throw it away."""
    with tempfile.TemporaryDirectory() as folder:
        student.train(training_set, Path(folder))
        return answer_sorted(open_model(folder), eval_split.split.texts, student.name)
