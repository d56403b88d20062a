"""Rows whose gold label is probably wrong, or of which student and teacher say something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.data.corrections import row_keys
from distill_tasks.problems.classification import confidence, name_labels
from distill_tasks.results.doubts import SURE
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.scoring.scorecard import Predictions
from distill_tasks.serving.served_model import open_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distill_tasks.problems.classification import Decisions
    from distill_tasks.results.references import StudentReference
    from distill_tasks.results.run import OpenRun
    from distill_tasks.scoring.scorecard import EvalSplit

MOST_ROWS = 1000
LABELLED = ("train", "validation", "held_out")


@dataclass(frozen=True)
class LabelError:
    """A row to look at: its gold, and what teacher and student say of it."""

    key: str
    split: str
    text: str
    gold: str
    """Empty where there is none."""
    teacher: str
    teacher_confidence: float
    student: str
    student_confidence: float | None
    disagreement: str
    """Who contradicts whom: `teacher against gold` or `student against teacher`."""
    rank: float
    """How surely they disagree, from 0 to 1."""

    @property
    def against_gold(self) -> bool:
        """Whether it is gold that the teacher contradicts."""
        return self.disagreement == "teacher against gold"


def find_label_errors(run: OpenRun, student: StudentReference | None) -> list[LabelError]:
    """Return the rows of which the surest disagree, those against gold first, at most 1,000.

    The teacher is against gold where it surely gives another label; the rank is its confidence less
    what it gives gold. The student is against the teacher where both are sure, and not against gold
    as well; the rank is the lower confidence. Train is read for the teacher against gold alone: the
    student learnt those rows. Source of the idea: Northcutt, Jiang, Chuang 2021, "Confident
    Learning", with one threshold in place of one for each class.
    """
    found: dict[str, LabelError] = {}
    for name in LABELLED:
        for error in _find_in(run, name, student):
            found.setdefault(error.key, error)
    ranked = sorted(
        found.values(), key=lambda e: (e.disagreement != "teacher against gold", -e.rank)
    )
    return _ask_student(ranked[:MOST_ROWS], student)


def _find_in(run: OpenRun, name: str, student: StudentReference | None) -> list[LabelError]:
    evaluator = Evaluator(run, name)
    split, gold = evaluator.eval_split.split, evaluator.eval_split.gold
    teacher = _Answers(run, evaluator.eval_split.teacher)
    gold_ranks = np.zeros(len(split))
    if gold is not None:
        apart = (teacher.decisions != gold).any(axis=1) & (teacher.sure >= SURE)
        gold_ranks = np.where(apart, teacher.sure - teacher.trust(gold), 0)
    ranks = np.zeros(len(split))
    if student is not None and name != "train":
        own = _Answers(run, evaluator.ask(student))
        both = np.minimum(own.sure, teacher.sure)
        apart = (own.decisions != teacher.decisions).any(axis=1) & (both >= SURE)
        ranks = np.where(apart & (gold_ranks == 0), both, 0)
    against = {"teacher against gold": gold_ranks, "student against teacher": ranks}
    return [
        error
        for disagreement, ranked in against.items()
        for error in _list(evaluator.eval_split, teacher, disagreement, ranked)
    ]


class _Answers:
    """A model's decisions on some rows, and how sure it is of them."""

    def __init__(self, run: OpenRun, predictions: Predictions) -> None:
        self.predictions, self.problem = predictions, run.corpus.problem
        calibration, logits = predictions.calibration, predictions.logits
        self.decisions = calibration.decide(logits, self.problem)
        self.sure = calibration.confidence(logits, self.problem)

    def trust(self, decisions: Decisions) -> NDArray[np.float64]:
        """Return the probability (rows,) that it gives to other decisions."""
        logits, temperature = self.predictions.logits, self.predictions.calibration.temperature
        return confidence(logits, decisions, self.problem, temperature)


def _list(
    rows: EvalSplit, teacher: _Answers, disagreement: str, ranks: NDArray[np.float64]
) -> list[LabelError]:
    """Return the rows with a rank above zero, before the student was asked."""
    numbers = np.flatnonzero(ranks)
    texts = [rows.split.texts[number] for number in numbers]
    gold = rows.split.take(numbers).decisions(len(rows.classes))
    return [
        LabelError(key, rows.name, text, label, said, float(sure), "", None, disagreement, rank)
        for key, text, label, said, sure, rank in zip(
            row_keys(texts),
            texts,
            [""] * len(texts) if gold is None else name_labels(gold, rows.classes),
            name_labels(teacher.decisions[numbers], rows.classes),
            teacher.sure[numbers],
            ranks[numbers].tolist(),
            strict=True,
        )
    ]


def _ask_student(
    errors: Sequence[LabelError], student: StudentReference | None
) -> list[LabelError]:
    """Return the rows with what the student, opened as it is served, says of them."""
    if student is None or not errors:
        return list(errors)
    answers = open_model(student.folder).answer([error.text for error in errors])
    return [
        replace(error, student=answer.label, student_confidence=answer.confidence)
        for error, answer in zip(errors, answers, strict=True)
    ]
