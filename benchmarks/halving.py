"""What does halving save, and does it choose the same student? Reuters R8, twelve candidates.

Three depths of `layers` students by four learning rates learn from 2,000 rows, with 2,000 others
for validation: with halving and, in a store of its own, each to the end at once. What halving takes
holds every start from a checkpoint, not the answers to validation at the rungs. The choice is made
on validation, by the knee of the front, in both grids; three seeds of the students, one teacher.
Latencies do not depend on the seed, so the students of the first one are timed for all.
Prints a table for people and, as its last line, one JSON object:

- ``saved_fraction``: training time that halving saved, of the full grid's; the least of the seeds.
- ``same_choice``: share of seeds in which both grids choose the same student, or one whose
  validation accuracy lies inside the interval of the other one's.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from reuters import configure, say_machine

from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.choice import find_finalists
from distill_tasks.results.grid import first_trials
from distill_tasks.results.outcomes import Latencies, Scores
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.halve import halve_grid
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.measure import measure_all
from distill_tasks.stages.prepare import check_config
from distill_tasks.stages.select import make_field, make_rule

SEEDS = (13, 14, 15)
ROWS, VALIDATION_SHARE = 4_000, 0.5
"""A grid is compared on enough rows to tell its students apart."""
STUDENTS = [
    {"family": "layers", "layers": [1, 2, 3], "learning_rate": [3e-5, 1e-4, 3e-4, 1e-3]},
]


@dataclass(frozen=True)
class Grids:
    """The students of one seed, with halving and without."""

    run: OpenRun
    survivors: list[StudentReference]
    everybody: list[StudentReference]
    stopped_s: float
    """What training took those that were stopped."""

    @property
    def halved_s(self) -> float:
        """What training took with halving."""
        return sum(student.seconds for student in self.survivors) + self.stopped_s

    @property
    def full_s(self) -> float:
        """What training took without."""
        return sum(student.seconds for student in self.everybody)

    @property
    def saved(self) -> float:
        """Share of the full grid's training time that was saved."""
        return 1 - self.halved_s / self.full_s


@dataclass(frozen=True)
class Choice:
    """Who is chosen from both grids of one seed."""

    halved: str
    full: str
    same: bool
    """Or inside the other's interval."""


def main() -> None:
    """Print the table and the JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        work = f"{folder}/work"  # seconds that were kept would outlive the engine they measured
        config = configure("r8", Path(folder), ROWS, students=STUDENTS, work_dir=work)
        data = config.data.model_copy(update={"validation_share": VALIDATION_SHARE})
        config = config.model_copy(update={"data": data})
        corpus = check_config(config)
        teacher = make_teacher(config, corpus)
        labels = label_rows(config, corpus, teacher).open()
        run = OpenRun(config, corpus, teacher, labels, config.loss.usual_objective)
        seeds = [replace(run, config=config.model_copy(update={"seed": s})) for s in SEEDS]
        trained = [train_both(run) for run in seeds]
        latencies = measure_all(run, trained[0].everybody)
        choices = [choose_both(grids, latencies) for grids in trained]
    table = [
        {
            "seed": str(grids.run.config.seed),
            "stopped of 12": str(len(grids.everybody) - len(grids.survivors)),
            "halved s": f"{grids.halved_s:.0f}",
            "full s": f"{grids.full_s:.0f}",
            "saved": f"{100 * grids.saved:.0f} %",
            "chosen": choice.halved,
            "chosen of all": choice.full,
        }
        for grids, choice in zip(trained, choices, strict=True)
    ]
    print(markdown_table(table), end="\n\n")
    print(say_machine(), end="\n\n")
    figures = {
        "saved_fraction": min(grids.saved for grids in trained),
        "same_choice": fmean(choice.same for choice in choices),
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def train_both(run: OpenRun) -> Grids:
    """Train the halved grid, and the full one."""
    trials = first_trials(run.config)
    halving = halve_grid(run)
    stopped_s = sum(stop.saved_s * stop.share / (1 - stop.share) for stop in halving.stops)
    survivors = [train_one(run, trial) for trial in halving.remaining(trials)]
    apart = run.config.model_copy(update={"work_dir": f"{run.config.work_dir}/whole"})
    everybody = [train_one(replace(run, config=apart), trial) for trial in trials]
    return Grids(run, survivors, everybody, stopped_s)


def choose_both(grids: Grids, latencies: Latencies) -> Choice:
    """Choose from the halved grid, and from the full one."""
    scores = score_all(grids.run, grids.everybody, "validation")

    def choose(students: list[StudentReference]) -> str:
        names = {student.name for student in students}
        candidates = {name: card for name, card in scores.candidates.items() if name in names}
        known = Scores("validation", scores.models, candidates, {}, reused=True)
        field = make_field(grids.run, students, known, latencies)
        return find_finalists(field, make_rule(grids.run.config), 1)[0]

    chosen, best = choose(grids.survivors), choose(grids.everybody)
    quality = {name: card.quality for name, card in scores.candidates.items()}
    inside = quality[best].low <= quality[chosen].value <= quality[best].high
    return Choice(chosen, best, chosen == best or inside)


if __name__ == "__main__":
    main()
