"""The evaluator: runs models on the rows of one split, each at most once, and scores them."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import cached_property

from distill_tasks.core.digests import digest
from distill_tasks.execution.base import map_at_once
from distill_tasks.problems.classification import Answering, Logits
from distill_tasks.results.kept import fit_calibration
from distill_tasks.results.references import TEACHER, StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.parity import Parity, compare_to_reference
from distill_tasks.scoring.predictions import AnswerStore
from distill_tasks.scoring.scorecard import EvalSplit, Predictions, Scorecard, score
from distill_tasks.serving.served_model import open_model
from distill_tasks.students.controls import (
    CONTROLS,
    MAJORITY_CLASS,
    WORDS_ON_GOLD,
    Limit,
    find_limit,
)

logger = logging.getLogger("potstill")


CODE_VERSION = 4
"""Raised when a change of the code changes the figures that come out."""
FEWEST_ANSWERS = 20_000
"""So many answers, of all models together, are worth the start of workers."""


class Evaluator:
    """Runs models on the rows of one split, each at most once, and scores their answers."""

    def __init__(self, run: OpenRun, split: str) -> None:
        self.run = run
        rows = run.corpus.splits[split]
        self.answers = AnswerStore(run.store, rows)
        teacher = Predictions(run.labels.read(rows.texts).logits, self.calibrate(self._validated()))
        corpus, metric = run.corpus, run.config.select.metric
        self.eval_split = EvalSplit(split, rows, teacher, corpus.classes, corpus.problem, metric)
        self.made = 0

    def ask(self, student: StudentReference) -> Predictions:
        """Return the predictions of a student, opened as it would be served."""

        def open_it() -> Answering:
            logger.info("evaluate %s on %s", student.name, self.eval_split.name)
            return open_model(student.folder)

        logits = self.answers.read(student.digest, student.name, open_it)
        return Predictions(logits, student.calibration)

    def ask_candidates(self, students: list[StudentReference]) -> dict[str, list[Predictions]]:
        """Return the predictions of every candidate's distilled seeds, by candidate."""
        asked: dict[str, list[Predictions]] = {}
        for student in students:
            if student.distilled:
                asked.setdefault(student.candidate, []).append(self.ask(student))
        return asked

    def compare_variants(
        self, students: list[StudentReference], asked: dict[str, list[Predictions]]
    ) -> dict[str, Parity]:
        """Return how far each variant is from its reference over all seeds, by candidate.

        ``asked`` is the result of `ask_candidates` for the same students.
        """
        return {
            s.candidate: compare_to_reference(
                self.eval_split,
                s.variant,
                asked[s.candidate],
                asked[s.student],
                self.run.config.seed,
            )
            for s in students
            if s.served and s.candidate != s.student and not s.is_teacher
        }

    def ask_control(self, name: str) -> Predictions:
        """Return the predictions of a control that is no student: words or majority class."""
        train, classes = self.run.corpus.splits["train"], len(self.run.corpus.classes)
        key = digest(name, train.digest, classes, *self.limit(name))

        def open_it() -> Answering:
            return CONTROLS[name](train, classes, self.run.corpus.problem)

        logits = self.answers.read(key, name, open_it)
        if name == MAJORITY_CLASS:  # thresholds fitted for F1 would predict every label
            return Predictions(logits, Calibration())
        validation = AnswerStore(self.run.store, self.run.corpus.splits["validation"])
        return Predictions(logits, self.calibrate(validation.read(key, name, open_it)))

    def limit(self, control: str) -> list[int]:
        """Return the limit of terms that a control reads; an empty list if it reads all."""
        limit = self._limit if control == WORDS_ON_GOLD else None
        return [] if limit is None else [limit.terms]

    def score_seeds(self, seeds: list[StudentReference]) -> Scorecard:
        """Return the scorecard of a student over some of its seeds."""
        key = digest([student.digest for student in seeds])
        return self.score(key, [self.ask(student) for student in seeds])

    def score_teacher(self) -> Scorecard:
        """Return the scorecard of the teacher."""
        return self.score(TEACHER, [self.eval_split.teacher])

    def score_control(self, name: str) -> Scorecard:
        """Return the scorecard of a control that is no student."""
        key = digest(name, self.run.corpus.splits["train"].digest, *self.limit(name))
        return self.score(key, [self.ask_control(name)])

    def score(self, key: str, predictions: list[Predictions]) -> Scorecard:
        """Return the scorecard of predictions, stored under a key that identifies the model."""
        eval_split = self.eval_split
        key = digest(
            CODE_VERSION,
            key,
            [asdict(one.calibration) for one in predictions],
            self.run.answers_digest,
            asdict(eval_split.teacher.calibration),
            [eval_split.split.digest, eval_split.problem, eval_split.metric],
        )
        card, kept = self.run.store.remember(
            "scorecards", key, Scorecard, lambda: score(eval_split, predictions)
        )
        self.made += not kept
        return card

    def calibrate(self, at_validation: Logits) -> Calibration:
        """Return the calibration fitted on a model's answers to validation."""
        precision = self.run.config.evaluate.answer_precision
        return fit_calibration(self.run.corpus, at_validation, precision)

    @cached_property
    def _limit(self) -> Limit | None:
        return find_limit(
            self.run.corpus.splits["train"], len(self.run.corpus.classes), self.run.corpus.problem
        )

    def _validated(self) -> Logits:
        return self.run.labels.read(self.run.corpus.splits["validation"].texts).logits


def answer_there(run: Run, student: StudentReference, split: str) -> None:
    """Have a student answer a split in the process that this is called in; that is stored."""
    Evaluator(run.open(), split).ask(student)


def answer_somewhere(
    run: Run, opened: OpenRun, students: list[StudentReference], split: str
) -> None:
    """Have the workers of a run, where there are any, answer what is much and not stored yet."""
    if run.config.execution.is_here:
        return
    rows = opened.corpus.splits[split]
    answers = AnswerStore(opened.store, rows)
    models = {one.digest: one for one in students if not answers.holds(one.digest)}
    if len(models) * len(rows) < FEWEST_ANSWERS:
        return
    with run.config.execution.start(len(models)) as workers:

        def answer(student: StudentReference) -> None:
            about = f"evaluate {student.name} on {split}"
            workers.call(about, answer_there, run, student, split)

        map_at_once(answer, models.values(), workers.at_once)
