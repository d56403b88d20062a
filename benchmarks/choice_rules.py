"""The rule of choosing as it was and as it is, on one draw of the rows that decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from redraws import Answered, Draw, Rows
from reuters import SEED

from distill_tasks.measuring.latency import tie
from distill_tasks.results.choice import Rule, choose_kept, find_finalists, select_candidate
from distill_tasks.results.outcomes import Proof
from distill_tasks.results.selection import Candidate, Field, Selection
from distill_tasks.scoring.intervals import SIDE, Figure, Statistic
from distill_tasks.scoring.pareto import find_front
from distill_tasks.scoring.prediction_powered import ByTeacher, Evidence, collect_evidence
from distill_tasks.scoring.promises import Promise, PromiseTest, check_promises, share_error
from distill_tasks.scoring.scorecard import EvalSplit, Predictions, Scorecard, quality_statistic
from distill_tasks.scoring.settings import SelectConfig

FINALISTS, ALLOWED_DROP = 3, 0.005
"""As `evaluate.finalists` and `registry.allowed_drop` by default."""


@dataclass(frozen=True)
class Seen:
    """What one run sees: the answers to the rows that were drawn."""

    answered: Answered
    draw: Draw

    def take(self, rows: Rows) -> EvalSplit:
        """Return some rows as a split, with the teacher's answers."""
        whole = self.answered.rows
        return replace(
            whole, split=whole.split.take(rows), teacher=take_answers(whole.teacher, rows)
        )

    @property
    def promise(self) -> Promise:
        """What the champion must keep."""
        return Promise("retention", self.answered.data.promise)

    def check(self, name: str, rows: Rows, error: float) -> list[PromiseTest]:
        """Return what some rows say of the promise about a candidate."""
        said = take_answers(self.answered.said[name], rows)
        return check_promises([self.promise], self.take(rows), said, error=error, seed=SEED)

    @cached_property
    def field(self) -> Field:
        """The candidates as validation and the rows labelled by the teacher show them."""
        answered, evidence = self.answered, self.collect()
        candidates = [
            Candidate(
                student=student,
                validation=describe(powered),
                latency=replace(answered.latencies.by_name[student.name], p95_ms=float(p95_ms)),
                footprint=answered.latencies.footprints[student.name],
                parity=None,
                powered=powered,
                promises=tuple(self.check(student.candidate, self.draw.validation, SIDE)),
            )
            for student, p95_ms, powered in zip(
                answered.students, self.draw.p95_ms, evidence.qualities, strict=True
            )
        ]
        return Field(candidates, evidence.low_gaps, answered.latencies.band, ())

    def collect(self) -> Evidence:
        """Return the evidence on every candidate's quality, of gold and of the teacher's labels."""
        validation, scored = self.take(self.draw.validation), self.take(self.draw.scored)
        by_teacher = ByTeacher(
            on_gold=self.score(validation.without_gold, self.draw.validation),
            further=self.score(scored.without_gold, self.draw.scored),
            rows=len(scored.split),
        )
        gold = self.score(validation, self.draw.validation)
        return collect_evidence(gold, len(validation.split), by_teacher, SEED)

    def score(self, split: EvalSplit, rows: Rows) -> list[Statistic]:
        """Return the quality of every candidate on some rows."""
        return [
            quality_statistic(split, [take_answers(said, rows)])
            for said in self.answered.said.values()
        ]


ChampionRule = Callable[[Seen, SelectConfig], str | None]
"""Names the champion of a draw, or none."""


def take_answers(said: Predictions, rows: Rows) -> Predictions:
    """Return a model's answers to some rows."""
    return replace(said, logits=said.logits[rows])


def describe(quality: Figure) -> Scorecard:
    """Return a scorecard that holds nothing but the quality."""
    return Scorecard("validation", "accuracy", {"quality/accuracy": quality}, [], 0, 1.0, {})


def choose_as_before(seen: Seen, config: SelectConfig) -> str | None:
    """Return who is first of those whose estimate on validation keeps the promise."""
    answered, rows = seen.answered, seen.draw.validation
    accuracy = answered.hits[:, rows].mean(axis=1)
    keeps = accuracy / answered.teacher_hits[rows].mean() >= seen.promise.least
    running = np.flatnonzero(keeps)
    if not running.size:
        return None
    times_ms = tie(seen.draw.p95_ms[running], answered.latencies.band)
    on_front = find_front(np.stack([accuracy[running], times_ms], axis=1))
    front, times_ms = running[on_front], times_ms[on_front]
    height = accuracy[front]
    if config.choose == "knee":
        height = scale(height) - scale(np.log(times_ms))
    return answered.names[front[np.lexsort([times_ms, -height])[0]]]


def scale(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values from 0 to 1, all 0 where they are equal."""
    span = np.ptp(values)
    scaled: NDArray[np.float64] = (values - values.min()) / (span if span > 0 else 1)
    return scaled


def choose_as_now(seen: Seen, config: SelectConfig) -> str | None:
    """Return the first finalist that keeps the promise on held-out, as a run would choose it."""
    rule = Rule(config, ALLOWED_DROP)
    finalists = find_finalists(seen.field, rule, FINALISTS)
    selection = select_candidate(seen.field, finalists, rule)
    return choose_kept(selection, prove(seen, selection), config).chosen


def prove(seen: Seen, selection: Selection) -> Proof:
    """Return what held-out says of the promise about each of the finalists."""
    leading = selection.leading
    errors = share_error(len(leading)) if leading else []
    tests = {
        name: seen.check(name, seen.draw.held_out, error)
        for name, error in zip(leading, errors, strict=True)
    }
    return Proof({}, {}, {}, {}, promises=tests, against_words={}, reused=False)
