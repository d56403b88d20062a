"""How much faster is a student that keeps 99 % of its teacher? Reuters R8 and R52, all gold.

A MiniLM is fine-tuned on all official training rows but a tenth for validation, and labels them;
students of every family learn from both, in every variant, each beside its control: the same
student, for as many steps, on gold without the teacher. Held-out is the official test set. Times
are p50 at batch 1, text in, label out, all models in one interleaved run. On R8 one student is also
trained with each distillation loss, three seeds each. What was trained is kept in
.potstill/benchmarks, so that a run that was cut short goes on; the name of a data set runs it
alone. Prints tables for people and, as its last line, one JSON object:

- ``speedup_at_99_retention``: by data set, the teacher's p50 over that of the fastest candidate
  with at least 99 % of its held-out accuracy; 0 if there is none.
- ``teacher_accuracy``: of the teacher on held-out, by data set.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from reuters import Name, configure, say_machine

from distill_tasks.config import DistillConfig
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.grid import Grid, Trial, first_trials, further_trials
from distill_tasks.results.outcomes import Latencies, Scores
from distill_tasks.results.references import TEACHER, StudentReference
from distill_tasks.results.run import OpenRun
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.export import export_all
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.measure import measure_all
from distill_tasks.stages.prepare import check_config
from distill_tasks.students import LayersStudent
from distill_tasks.students.controls import MAJORITY_CLASS, WORDS_ON_GOLD
from distill_tasks.training.objective import Objective, Term

LEAST_RETENTION = 0.99
TEACHERS: dict[Name, dict[str, float]] = {
    "r8": {"epochs": 4, "batch_rows": 32},
    "r52": {"epochs": 6, "batch_rows": 32, "learning_rate": 2e-4, "max_length": 192},
}
STUDENTS = [
    {"family": "layers", "layers": [1, 2]},
    {"family": "layers", "layers": 1, "epochs": 6},
    {"family": "static", "dimensions": [64, 256]},
    {"family": "bag_of_words"},
]
LOSSES: dict[str, tuple[dict[Term, float], bool]] = {
    **{
        name: ({name: 1.0}, False) for name in get_args(Term) if name not in ("hidden", "relations")
    },
    "kl, standardized": ({"kl": 1.0}, True),
    "kl + hidden": ({"kl": 1.0, "hidden": 1.0}, False),
    "kl + relations": ({"kl": 1.0, "relations": 1.0}, False),
}
SEEDS = 3
COMPARED = LayersStudent(layers=1)


def main() -> None:
    """Print the tables and the JSON line."""
    speedups, teachers = {}, {}
    for name in [name for name in TEACHERS if name in (sys.argv[1:] or TEACHERS)]:
        with tempfile.TemporaryDirectory() as folder:
            config = configure_all(name, Path(folder))
            corpus = check_config(config)
            teacher = make_teacher(config, corpus)
            labels = label_rows(config, corpus, teacher).open()
            usual = config.loss.objective(1.0, 0.9)
            run = OpenRun(config, corpus, teacher, labels, usual)
            scores, latencies = distil(run)
            print(f"{name.upper()}:", end="\n\n")
            print(markdown_table(tabulate(scores, latencies)), end="\n\n")
            if name == "r8":
                print(f"Losses, {COMPARED.name}, {SEEDS} seeds:", end="\n\n")
                print(markdown_table(compare_losses(run)), end="\n\n")
        speedups[name] = fastest(scores, latencies)
        teachers[name] = round(scores.models[TEACHER].quality.value, 4)
    print(say_machine(), end="\n\n")
    print(json.dumps({"speedup_at_99_retention": speedups, "teacher_accuracy": teachers}))


def configure_all(name: Name, folder: Path) -> DistillConfig:
    """Return a configuration whose teacher and students learn from all official rows."""
    config = configure(name, folder, students=STUDENTS, loss={"temperature": 1.0})
    teacher = config.teacher.model_copy(update=TEACHERS[name])
    data = config.data.model_copy(update={"validation_share": 0.1})
    return config.model_copy(update={"teacher": teacher, "data": data})


def distil(run: OpenRun) -> tuple[Scores, Latencies]:
    """Train all students and their controls, and score and time them."""
    config = run.config
    further = [each for student in config.students for each in further_trials(config, student)]
    controls = [each for each in further if not each.distilled and each.seed == config.seed]
    trained = [train(run, trial) for trial in [*first_trials(config), *controls]]
    students = export_all(run, Grid(trained)).students
    return score_all(run, students, "held_out"), measure_all(run, students)


def train(run: OpenRun, trial: Trial) -> StudentReference:
    """Train one student, and say so."""
    print(f"train {trial.name}", file=sys.stderr)
    return train_one(run, trial)


def tabulate(scores: Scores, latencies: Latencies) -> list[dict[str, str]]:
    """Return teacher, candidates and controls as rows of text, the quickest first."""
    times = {name: latency.p50_ms for name, latency in latencies.by_name.items()}
    teacher = times[TEACHER]
    rows = [row(TEACHER, scores.models[TEACHER], f"{teacher:.3g}", "1×")]
    for name in sorted(scores.candidates, key=lambda name: times[name]):
        card = scores.candidates[name]
        rows.append(row(name, card, f"{times[name]:.3g}", f"{teacher / times[name]:.3g}×"))
    for name, card in scores.on_gold.items():
        rows.append(row(f"{name} on gold, control", card, "–", "–"))
    usual = (WORDS_ON_GOLD, MAJORITY_CLASS)
    return rows + [row(f"{name}, control", scores.models[name], "–", "–") for name in usual]


def row(name: str, card: Any, p50: str, speed_up: str) -> dict[str, str]:
    """Return one row of the table."""
    kept = card.figures.get("fidelity/retention")
    return {
        "model": name,
        "accuracy": str(card.quality),
        "retention": f"{100 * kept.value:.2f} %" if kept else "–",
        "p50 ms": p50,
        "speed-up p50": speed_up,
    }


def fastest(scores: Scores, latencies: Latencies) -> float:
    """Return the largest speed-up of a candidate that keeps enough."""
    teacher = latencies.by_name[TEACHER].p50_ms
    good = [
        teacher / latencies.by_name[name].p50_ms
        for name, card in scores.candidates.items()
        if card.figures["fidelity/retention"].value >= LEAST_RETENTION
    ]
    return round(max(good, default=0.0), 2)


def compare_losses(run: OpenRun) -> list[dict[str, str]]:
    """Return the held-out accuracy of one student by distillation loss, mean of its seeds."""
    config, rows = run.config, []
    for name, (terms, standardize) in LOSSES.items():
        other = replace(run, objective=Objective(1.0, 0.9, terms, standardize))
        trials = [Trial(COMPARED, config.seed + number, served=False) for number in range(SEEDS)]
        seeds = [train(other, trial) for trial in trials]
        cards = score_all(run, seeds, "held_out").models
        values = [cards[seed.name].quality.value for seed in seeds]
        spread = f"{min(values):.4f} to {max(values):.4f}"
        rows.append({"loss": name, "accuracy": f"{fmean(values):.4f}", "of the seeds": spread})
    return rows


if __name__ == "__main__":
    main()
