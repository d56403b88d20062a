"""All that one distillation found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from distill_tasks.measuring.cost import find_cost
from distill_tasks.results.audit import audit_teacher
from distill_tasks.results.label_errors import find_label_errors
from distill_tasks.results.reasons import find_misses
from distill_tasks.results.references import TEACHER
from distill_tasks.results.selection import Candidate
from distill_tasks.results.suspicious import find_suspicious
from distill_tasks.scoring.statistics import QUALITY_NAMES
from distill_tasks.students.controls import WORDS_ON_GOLD

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.soft_labels import SoftLabels
    from distill_tasks.measuring.cost import Cost
    from distill_tasks.measuring.latency import Latency, SpeedUp
    from distill_tasks.results.audit import Audit
    from distill_tasks.results.grid import Grid
    from distill_tasks.results.label_errors import LabelError
    from distill_tasks.results.outcomes import (
        Ablation,
        Halving,
        Judgement,
        Latencies,
        Proof,
        Scores,
        Tuning,
    )
    from distill_tasks.results.references import (
        CorpusReference,
        LabelsReference,
        StudentReference,
        TeacherReference,
    )
    from distill_tasks.results.run import Run
    from distill_tasks.results.selection import Selection
    from distill_tasks.results.suspicious import SuspiciousAnswer
    from distill_tasks.scoring.fidelity import Panel
    from distill_tasks.scoring.learning_curve import LearningCurve

IMBALANCE = 3
"""The largest class over the smallest one present, in rows, from which accuracy alone misleads."""


@dataclass(frozen=True)
class Findings:
    """What one distillation found: what its reports are written from."""

    run: Run
    tuning: Tuning
    halving: Halving
    grid: Grid
    validation: Scores
    held_out: Scores
    latencies: Latencies
    selection: Selection
    proof: Proof
    curve: LearningCurve
    ablation: Ablation | None = None
    """What synthetic rows bring; None where there are none."""

    @property
    def config(self) -> DistillConfig:
        """What the user asked for."""
        return self.run.config

    @property
    def corpus(self) -> CorpusReference:
        """Where the rows lie."""
        return self.run.corpus

    @property
    def teacher(self) -> TeacherReference:
        """The teacher."""
        return self.run.teacher

    @property
    def labels(self) -> LabelsReference:
        """Where the teacher's answers lie."""
        return self.run.labels

    @property
    def students(self) -> list[StudentReference]:
        """All that was trained and exported."""
        return self.grid.students

    @cached_property
    def rows(self) -> Corpus:
        """The rows themselves."""
        return self.corpus.open()

    @cached_property
    def soft_labels(self) -> SoftLabels:
        """The teacher's answers to the training rows, those of train first."""
        return self.labels.open().read(self.rows.training_rows.texts)

    @cached_property
    def label_errors(self) -> list[LabelError]:
        """Labelled rows that should be looked at again, the surest disagreement first."""
        choice = self.selection.choice
        return find_label_errors(self.run.open(), choice.student if choice else None)

    @cached_property
    def audit(self) -> Audit:
        """What was known of the teacher before any student was trained."""
        return audit_teacher(self.run.open())

    @cached_property
    def suspicious_answers(self) -> list[SuspiciousAnswer]:
        """Answers of the teacher that should be looked at, the most suspicious first."""
        return find_suspicious(self.run.open())

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """What each candidate's answers cost, by its name; empty where no prices are given."""
        prices, latencies = self.config.cost, self.latencies.by_name
        if prices is None:
            return {}
        trained = {student.trained: student.seconds for student in self.students}
        seconds = self.teacher.seconds + self.labels.seconds + sum(trained.values())
        answers, teacher = len(set(self.rows.texts)), latencies.get(TEACHER)
        costs = {
            candidate.name: find_cost(prices, candidate.latency, teacher, seconds, answers)
            for candidate in self.selection.candidates
        }
        return {name: cost for name, cost in costs.items() if cost is not None}

    @property
    def metric(self) -> str:
        """The name of the quality that held-out was scored by."""
        return self._name_metric("held_out")

    @property
    def validation_metric(self) -> str:
        """The name of the quality that validation was scored by, where the choice is made."""
        return self._name_metric("validation")

    @cached_property
    def to_register(self) -> Candidate | None:
        """What is registered: the chosen student, or the cheap control where that is wanted.

        None where that breaks a promise on held-out.
        """
        if self.config.registry.candidate == "chosen":
            return self.selection.choice
        return None if self._list_control_misses() else self.cheap_control

    @property
    def cheap_control(self) -> Candidate | None:
        """Words on gold as it would be served; None where it could not be trained."""
        served = [student for student in self.students if student.name == WORDS_ON_GOLD]
        return next((self._as_candidate(student) for student in served), None)

    @cached_property
    def teacher_variants(self) -> list[Candidate]:
        """The teacher itself as exported; empty where it has no weights here."""
        return [self._as_candidate(student) for student in self.grid.of([TEACHER])]

    @cached_property
    def best_teacher_variant(self) -> Candidate | None:
        """The fastest of the teacher's variants that is as good as it, within `allowed_drop`."""
        least = self.validation.models[TEACHER].quality.value - self.config.registry.allowed_drop
        good = [one for one in self.teacher_variants if one.validation.quality.value >= least]
        return min(good, key=lambda one: one.latency.p50_ms, default=None)

    @property
    def why_nothing_is_registered(self) -> str:
        """Which promise is broken, in a sentence."""
        if self.config.registry.candidate == "chosen":
            return self.selection.why_none
        if self.cheap_control is None:
            return f"{WORDS_ON_GOLD} could not be trained: {self.grid.failed.get(WORDS_ON_GOLD)}"
        return f"{WORDS_ON_GOLD}: {'; '.join(self._list_control_misses())}"

    @property
    def judgement(self) -> Judgement | None:
        """The judgement of the chosen student."""
        return self.proof.judgements.get(self.selection.chosen or "")

    @property
    def panel(self) -> Panel | None:
        """What the chosen student gets wrong."""
        return self.proof.panels.get(self.selection.chosen or "")

    @property
    def needs_macro_f1(self) -> bool:
        """Whether held-out is imbalanced and its metric may hide what happens to small classes.

        Imbalanced: the largest class has at least 3 times the rows of the smallest one present.
        """
        held_out = self.rows.splits["held_out"].rows_per_class(len(self.rows.classes))
        present = held_out[held_out > 0]
        uneven = present.size > 0 and present.max() >= IMBALANCE * present.min()
        return bool(uneven) and self.metric != QUALITY_NAMES["macro_f1"]

    def speed_up(self, latency: Latency) -> SpeedUp | None:
        """Return how many times faster than the teacher; None where it has no weights here."""
        teacher = self.latencies.by_name.get(TEACHER)
        return latency.speed_up_over(teacher) if teacher else None

    def speed_up_over_variant(self, latency: Latency) -> SpeedUp | None:
        """Return how many times faster than the teacher's best variant; None where it has none."""
        best = self.best_teacher_variant
        return latency.speed_up_over(best.latency) if best else None

    def _list_control_misses(self) -> list[str]:
        """Return the limits that the cheap control misses, and the promises that it breaks."""
        control, select = self.cheap_control, self.config.select
        tests = self.proof.promises[WORDS_ON_GOLD]
        broken = [f"breaks {test}" for test in tests if not test.is_kept(select.promise)]
        return [*(find_misses(control, select) if control else []), *broken]

    def _as_candidate(self, student: StudentReference) -> Candidate:
        return Candidate(
            student=student,
            validation=self.validation.models[student.name],
            latency=self.latencies.by_name[student.name],
            footprint=self.latencies.footprints[student.name],
            parity=None,
        )

    def _name_metric(self, split: str) -> str:
        has_gold = self.rows.splits[split].has_gold
        return QUALITY_NAMES[self.config.select.metric] if has_gold else "agreement"
