"""Stages ``blend`` and ``grow``: what other settings, and more text, do to the cheapest student."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from distill_tasks.config import AUTO, DistillConfig, LossConfig
from distill_tasks.core.digests import digest
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.problems.classification import Logits
from distill_tasks.results.evaluator import Examiner
from distill_tasks.results.outcomes import ChosenBlend, Comparison
from distill_tasks.results.references import CorpusReference, LabelsReference, TeacherReference
from distill_tasks.results.run import Schooling, cheapest, make_lesson, read_schooling, take
from distill_tasks.scoring.calibration import Calibration, fit_temperature
from distill_tasks.scoring.intervals import estimate, plain_value
from distill_tasks.scoring.learning_curve import LearningCurve, LearningPoint
from distill_tasks.scoring.predictions import answer_sorted
from distill_tasks.scoring.scorecard import Answered, Exam, quality_statistic
from distill_tasks.scoring.statistics import difference, kl_divergence, negative_log_likelihood
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.stage import stage
from distill_tasks.students import BagOfWordsStudent, train_student
from distill_tasks.students.base import Lesson
from distill_tasks.training.objective import Blend

logger = logging.getLogger("potstill")

CODE_VERSION = 3
"""Raised when a change of the code changes what is found."""

TEMPERATURES = (1.0, 2.0, 4.0)
"""Compared, beside the teacher's own fitted temperature, where T is left to the run."""
ALPHAS = (0.5, 0.9, 1.0)
USUAL_ALPHA = 0.9
"""Under which temperatures are compared where both are left to the run."""
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of the transfer rows on the learning curve; each point doubles the one before."""
FEWEST_TRANSFER_ROWS = 80


@stage("blend {config.loss.temperature} {config.loss.alpha}")
def blend(
    config: DistillConfig,
    corpus: CorpusReference,
    labels: LabelsReference,
    teacher: TeacherReference,
) -> ChosenBlend:
    """Settle temperature and α."""
    return choose_blend(config, corpus.open(), labels.open(), teacher)


def choose_blend(
    config: DistillConfig, corpus: Corpus, labels: SoftLabelStore, teacher: TeacherReference
) -> ChosenBlend:
    """Return temperature and α as configured, or the best of a few on the cheapest student."""
    temperature, alpha = config.loss.temperature, config.loss.alpha
    if temperature != AUTO and alpha != AUTO:
        return ChosenBlend(config.loss.blend(temperature, alpha), "as configured", [], reused=False)
    student = cheapest(config)
    settings = [student.model_dump(), config.loss.model_dump(), config.select.metric, config.seed]
    key = digest(CODE_VERSION, settings, corpus.digest, teacher.digest)
    found, kept = Store(config.work_dir).remember(
        "blends",
        key,
        ChosenBlend,
        lambda: _compare_blends(config, corpus, labels, teacher, student),
    )
    return replace(found, reused=kept)


def _compare_blends(
    config: DistillConfig,
    corpus: Corpus,
    labels: SoftLabelStore,
    teacher: TeacherReference,
    student: BagOfWordsStudent,
) -> ChosenBlend:
    exam = Examiner(config, corpus, labels, "validation").exam
    fitted = exam.teacher.calibration.temperature
    soft_labels = labels.read(corpus.lesson.texts)

    def compare(blend: Blend) -> Comparison:
        logger.info(
            "blend: %s with T = %.3g, α = %.3g", student.name, blend.temperature, blend.alpha
        )
        lesson = make_lesson(Schooling(config, corpus, soft_labels, teacher, blend), config.seed)
        return _compare(exam, blend, _ask_trained(student, lesson, exam))

    compared = _search(config.loss, fitted, compare)
    best = min(compared, key=lambda found: found.loss)
    measure = "NLL" if exam.gold is not None else "divergence from the teacher"
    reason = (
        f"least validation {measure}, {best.loss:.4f}, of {len(compared)} compared on "
        f"{student.name}; the teacher's own fitted temperature is {fitted:.2g}"
    )
    blend = config.loss.blend(best.temperature, best.alpha)
    return ChosenBlend(blend, reason, compared, reused=False)


@stage("grow the transfer set of {config.name}")
def grow(
    config: DistillConfig,
    corpus: CorpusReference,
    labels: LabelsReference,
    teacher: TeacherReference,
    chosen: ChosenBlend,
) -> LearningCurve:
    """Draw the learning curve."""
    return draw_learning_curve(config, corpus.open(), labels.open(), teacher, chosen.blend)


def draw_learning_curve(
    config: DistillConfig,
    corpus: Corpus,
    labels: SoftLabelStore,
    teacher: TeacherReference,
    blend: Blend,
) -> LearningCurve:
    """Train the cheapest student on growing parts of the transfer rows, and score it on held-out.

    No choice rests on the curve, so held-out may draw it.
    """
    student, transfer = cheapest(config), len(corpus.splits.get("transfer", ()))
    if transfer < FEWEST_TRANSFER_ROWS:
        return LearningCurve(student.name, [], None, reused=False)
    settings = [student.model_dump(), asdict(blend), config.select.metric]
    weights = [config.loss.balance_classes, config.seed]
    key = digest(CODE_VERSION, settings, weights, corpus.digest, teacher.digest)
    curve, kept = Store(config.work_dir).remember(
        "curves", key, LearningCurve, lambda: _grow(config, corpus, labels, teacher, blend, student)
    )
    return replace(curve, reused=kept)


def _grow(
    config: DistillConfig,
    corpus: Corpus,
    labels: SoftLabelStore,
    teacher: TeacherReference,
    blend: Blend,
    student: BagOfWordsStudent,
) -> LearningCurve:
    exam = Examiner(config, corpus, labels, "held_out").exam
    lesson = make_lesson(read_schooling(config, corpus, labels, teacher, blend), config.seed)
    gold_rows, transfer = (len(corpus.splits[name]) for name in ("train", "transfer"))
    order = np.random.default_rng(config.seed).permutation(transfer)
    sizes = [round(share * transfer) for share in SHARES]
    statistics = {}
    for size in sizes:
        logger.info("grow: %s with %d transfer rows", student.name, size)
        part = take(lesson, np.r_[:gold_rows, gold_rows + np.sort(order[:size])])
        asked = Answered(_ask_trained(student, part, exam), Calibration())
        statistics[str(size)] = quality_statistic(exam, [asked])
    last, before = str(sizes[-1]), str(sizes[-2])
    gain = {"gain": difference(statistics[last], statistics[before])}
    figures = estimate(statistics | gain, len(exam.split), config.seed)
    points = [LearningPoint(size, figures[str(size)]) for size in sizes]
    return LearningCurve(student.name, points, figures["gain"], reused=False)


def _search(
    loss: LossConfig, fitted: float, compare: Callable[[Blend], Comparison]
) -> list[Comparison]:
    """Compare temperatures first, then α at the best of them."""
    temperature, alpha = loss.temperature, loss.alpha
    first_alpha = USUAL_ALPHA if isinstance(alpha, str) else alpha
    temperatures = (
        sorted({*TEMPERATURES, round(fitted, 2)}) if isinstance(temperature, str) else [temperature]
    )
    compared = [compare(loss.blend(each, first_alpha)) for each in temperatures]
    best = min(compared, key=lambda found: found.loss).temperature
    if isinstance(alpha, str):
        compared += [compare(loss.blend(best, each)) for each in ALPHAS if each != first_alpha]
    return compared


def _compare(exam: Exam, blend: Blend, logits: Logits) -> Comparison:
    if exam.gold is None:
        calibration = Calibration()
        loss = kl_divergence(logits, exam.teacher.logits, exam.problem).mean()
    else:
        calibration = Calibration(fit_temperature(logits, exam.gold, exam.problem))
        likelihood = negative_log_likelihood(
            logits, exam.gold, exam.problem, calibration.temperature
        )
        loss = likelihood.mean()
    quality = quality_statistic(exam, [Answered(logits, calibration)])
    value = plain_value(quality, len(logits))
    return Comparison(blend.temperature, blend.alpha, float(loss), value)


def _ask_trained(student: BagOfWordsStudent, lesson: Lesson, exam: Exam) -> Logits:
    """Train a student that is thrown away, and return what it says of a split."""
    with tempfile.TemporaryDirectory() as folder:
        train_student(student, lesson, Path(folder))
        return answer_sorted(open_model(folder), exam.split.texts, student.name)
