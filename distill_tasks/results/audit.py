"""The audit: how good the teacher is, how sure, and how often it agrees with itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_tasks.core.digests import digest
from distill_tasks.data.corpus import Corpus
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.teacher import teacher_context
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.fidelity import Confusion, count_confusions
from distill_tasks.scoring.intervals import Figure, estimate, exact_share
from distill_tasks.scoring.statistics import calibration_error
from distill_tasks.students.controls import WORDS_ON_GOLD, has_words_on_gold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill_tasks.llm.label_prior import PriorChoice
    from distill_tasks.results.run import OpenRun
    from distill_tasks.scoring.scorecard import EvalSplit

ACCURACY, ECE = "quality/accuracy", "calibration/ece"
CONFIDENCE_DIGITS = 4
"""Decimals by which two confidences count as different ones."""


@dataclass(frozen=True)
class SelfAgreement:
    """How many training rows the teacher answered twice, and how many of them alike."""

    agreed: int
    rows: int

    @property
    def share(self) -> Figure:
        """The share of rows with the same class twice, with its exact interval."""
        return exact_share(self.agreed, self.rows)

    @property
    def highest_agreement(self) -> float:
        """The share of rows in which any student can be expected to agree with it, at most.

        A row answered with probabilities p gets the same class twice with probability ∑p², and what
        one always says of it agrees with probability max p ≤ √∑p²; over rows, E max p ≤ √E∑p².
        """
        return float(np.sqrt(self.share.value))


@dataclass(frozen=True)
class Censored:
    """How much of the probability lies on classes of which replies say nothing."""

    rows: int
    """Answers of which it is known."""
    mean: float
    p95: float
    """What 95 % of the answers do not exceed."""


@dataclass(frozen=True)
class Audit:
    """What is known of a teacher from its answers to validation, before any student is trained.

    Without gold there, only what needs none.
    """

    rows: int
    """Rows of validation."""
    confidences: int
    """Different confidences among its answers to them, before any temperature."""
    self_agreement: SelfAgreement | None
    """None where it was not asked twice."""
    prior: PriorChoice | None = None
    """Whether its answers are divided by its label prior; None where nothing was compared."""
    censored: Censored | None = None
    """None where no answer says what it is."""
    suspicious: int = 0
    """Training rows whose answer is suspicious."""
    suspicious_weight: float = 1.0
    """How much these answers count in training."""
    temperature: float = 1.0
    """Fitted on validation."""
    accuracy: Figure | None = None
    ece_before: Figure | None = None
    """The expected calibration error of its answers as they came."""
    ece_after: Figure | None = None
    """The same with the fitted temperature, on the same rows."""
    words_on_gold: Figure | None = None
    """The accuracy of words on gold; None where train has no gold to learn them from."""
    per_class: tuple[dict[str, Any], ...] = ()
    """Precision, recall, F1 and rows of each class."""
    confusions: tuple[Confusion, ...] = ()
    """The classes most often taken for another one."""
    reused: bool = False
    """Whether nobody had to be asked or scored for it."""


def audit_teacher(run: OpenRun) -> Audit:
    """Return the audit of a run's teacher; it is asked some training rows again, but only once."""
    evaluator = Evaluator(run, "validation")
    eval_split, (again, kept) = evaluator.eval_split, ask_twice(run)
    confidences = _count_confidences(eval_split)
    found = Audit(
        rows=len(eval_split.split),
        confidences=confidences,
        self_agreement=again,
        prior=run.prior,
        censored=find_censored(run),
        suspicious=sum(text in run.answered.doubted for text in run.corpus.training_rows.texts),
        suspicious_weight=run.config.loss.suspicious_weight,
        reused=kept,
    )
    if eval_split.gold is None:
        return found
    card, words = evaluator.score_teacher(), None
    if has_words_on_gold(run.corpus.splits["train"]):
        words = evaluator.score_control(WORDS_ON_GOLD).figures[ACCURACY]
    wrong = (eval_split.decide(eval_split.teacher) != eval_split.gold).any(axis=1)
    return replace(
        found,
        temperature=card.temperature,
        accuracy=card.figures[ACCURACY],
        ece_before=_find_ece_before(eval_split),
        ece_after=card.figures[ECE],
        words_on_gold=words,
        per_class=tuple(card.per_class),
        confusions=tuple(count_confusions(eval_split, eval_split.teacher, wrong)),
        reused=kept and evaluator.made == 0,
    )


def ask_twice(run: OpenRun) -> tuple[SelfAgreement | None, bool]:
    """Return how often the teacher agrees with itself, and whether that was known before.

    Rows that it leaves unanswered either time do not count; None if there are no others.
    """
    texts = _draw(run)
    key = digest(run.answers_digest, len(texts))
    known = run.store.manifest("self_agreement", key, "agreed", "rows")
    if known is not None:
        return SelfAgreement(known["agreed"], known["rows"]), True
    if not texts:
        return None, True
    # The examples of its prompt may have left the corpus.
    corpus = run.corpus if run.whole is None else Corpus.open(run.whole)
    context = teacher_context(run.config, corpus, run.teacher.model, run.teacher.identity)
    rows, second = run.config.teacher.answer_again(texts, context)
    if not len(rows):
        return None, False
    if run.prior is not None:
        second = run.prior.apply(second)
    first = run.labels.read([texts[row] for row in rows]).logits
    alike = first.argmax(axis=1) == second.argmax(axis=1)
    found = SelfAgreement(int(alike.sum()), len(rows))
    run.store.keep("self_agreement", key, {"agreed": found.agreed, "rows": found.rows})
    return found, False


def find_censored(run: OpenRun) -> Censored | None:
    """Return how much is censored in the answers to all rows; None where nobody knows."""
    unanswered = set(run.labels.missing(run.corpus.texts))
    texts = [text for text in run.corpus.texts if text not in unanswered]
    values = run.labels.read_censored(texts)
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    return Censored(len(known), float(known.mean()), float(np.quantile(known, 0.95)))


def _draw(run: OpenRun) -> Sequence[str]:
    """Return the training rows to ask twice, at random among those that were answered."""
    wanted = run.config.teacher.rows_asked_twice
    if not wanted:
        return []
    texts = list(dict.fromkeys(run.corpus.training_rows.texts))
    unanswered = set(run.labels.missing(texts))
    order = np.random.default_rng(run.config.seed).permutation(len(texts))
    return [texts[row] for row in order if texts[row] not in unanswered][:wanted]


def _count_confidences(eval_split: EvalSplit) -> int:
    sure = Calibration().confidence(eval_split.teacher.logits, eval_split.problem)
    return len(np.unique(sure.round(CONFIDENCE_DIGITS)))


def _find_ece_before(eval_split: EvalSplit) -> Figure:
    """Return the calibration error of the teacher without a temperature."""
    logits, problem, plain = eval_split.teacher.logits, eval_split.problem, Calibration()
    right = (plain.decide(logits, problem) == eval_split.gold).all(axis=1)
    error = calibration_error(plain.confidence(logits, problem), right)
    return estimate({ECE: error}, len(right), 0, biased=[ECE])[ECE]
