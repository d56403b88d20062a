"""The grid: the trials of a run, the trained students, and those that failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from distill_tasks.config import DistillConfig
from distill_tasks.core.errors import NothingQualifiesError, say_error, stop_if_disk_full
from distill_tasks.execution.base import map_at_once
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import Run
from distill_tasks.students import Student
from distill_tasks.students.controls import has_words_on_gold
from distill_tasks.students.words_on_gold import WordsOnGoldStudent

logger = logging.getLogger("potstill")

WITHOUT_SYNTHETIC = "without-synthetic"
"""How the name of a student ends that learnt from the real rows alone."""


@dataclass(frozen=True)
class Trial:
    """One training of a student with a seed: with the teacher, or without it as a control."""

    student: Student
    seed: int
    distilled: bool = True
    served: bool = True
    """Whether the model of this seed is the one that is served."""
    carving: int = 1
    """Which carving of validation from train it is trained on; the first one is the run's own."""
    synthetic: bool = True
    """Whether it also learns from synthetic rows, where there are some."""

    @property
    def name(self) -> str:
        """A name unique within a run; the served seed has the name of the candidate."""
        if self.carving > 1:
            return f"{self.student.name}-carving-{self.carving}"
        own = self.distilled or self.served
        name = self.student.name if own else f"{self.student.name}-on-gold"
        name = name if self.synthetic else f"{name}-{WITHOUT_SYNTHETIC}"
        return name if self.served else f"{name}-seed-{self.seed}"


@dataclass(frozen=True)
class Grid:
    """The students trained and exported so far, and the reasons for those that failed."""

    students: list[StudentReference] = field(default_factory=list)
    """The trained students, each followed by its variants once they are exported."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a student or variant is missing, by its name."""
    trials: list[Trial] = field(default_factory=list)
    reused: bool = False

    @property
    def trained(self) -> list[StudentReference]:
        """The trained students, without their variants."""
        return [student for student in self.students if student.candidate == student.student]

    def settings(self, name: str) -> Student:
        """Return the settings of a student by its name."""
        return next(trial.student for trial in self.trials if trial.student.name == name)

    def of(self, names: Sequence[str]) -> list[StudentReference]:
        """Return everything made for the named students: seeds, controls, variants."""
        return [student for student in self.students if student.student in names]

    def add(
        self,
        trials: Sequence[Trial],
        train: Callable[[Trial], StudentReference],
        at_once: int = 1,
    ) -> Grid:
        """Return the grid with further trials trained; a student with a failed trial is left out.

        So many are trained ``at_once``, by threads of their own.
        Raises NothingQualifiesError if no student is left.
        """
        failed = dict(self.failed)

        def try_one(trial: Trial) -> StudentReference | None:
            name = trial.student.name
            if name in failed:
                return None
            try:
                return train(trial)
            except Exception as error:  # noqa: BLE001  # one failed training must not end the run
                stop_if_disk_full(error)
                failed[name] = f"its training failed: {trial.name}: {say_error(error)}"
                logger.warning("train %s: left out, %s", name, failed[name])
                return None

        trained = [one for one in map_at_once(try_one, trials, at_once) if one is not None]
        whole = [one for one in (*self.students, *trained) if one.student not in failed]
        if not any(student.distilled for student in whole):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            raise NothingQualifiesError(f"No student could be trained. {reasons}")
        return replace(self, students=whole, failed=failed, trials=[*self.trials, *trials])

    def further_trials(self, config: DistillConfig, finalists: Sequence[str]) -> list[Trial]:
        """Return the other seeds of the finalists, and their controls, student by student."""
        tried = {trial.student.name: trial.student for trial in self.trials}
        return [
            trial
            for name, student in tried.items()
            if name in finalists
            for trial in further_trials(config, student)
        ]


def cheap_control(run: Run) -> list[Trial]:
    """Return the trial of words on gold, where there is gold with words to learn from."""
    if not has_words_on_gold(run.corpus.open().splits["train"]):
        return []
    return [Trial(WordsOnGoldStudent(), run.config.seed, distilled=False)]


def first_trials(config: DistillConfig, left_out: Collection[str] = ()) -> list[Trial]:
    """Return one trial of every student of the configuration, from the configured seed.

    ``left_out`` names students that are not trained.
    """
    students = [student for student in config.students if student.name not in left_out]
    return [Trial(student, config.seed) for student in students]


def further_trials(config: DistillConfig, student: Student) -> list[Trial]:
    """Return the other seeds of a finalist, and its controls."""
    seeds = [config.seed + number for number in range(config.evaluate.seeds)]
    if not student.in_steps:
        seeds = seeds[:1]
    trials = [Trial(student, seed, served=False) for seed in seeds[1:]]
    if config.evaluate.controls and config.data.label_column is not None:
        trials += [Trial(student, seed, distilled=False, served=False) for seed in seeds]
    return trials
