"""What do other runtimes and int8 buy, and what do they cost? The demo's data, two layers kept.

One run on the demo's teacher: a student of two layers in every variant, the static students and the
bag of words, all timed with the teacher in one interleaved run, scored on held-out, and started in
a Python of their own. The packages are measured in virtual environments made for it. Prints tables
for people and, as its last line, one JSON object. Needs `make demo` first:

- ``int8_speedup``: p50 of the two layers in torch over that in ONNX int8.
- ``int8_accuracy_change_points``: held-out accuracy of int8 less that of torch, paired.
- ``fastest_over_teacher``: p50 of the teacher over that of the fastest student.
- ``smallest_p50_us``: p50 of one answer of the fastest student, in microseconds.
- ``serving_env_mb``: what an ONNX variant's requirements add to an environment that has mlflow.
- ``cold_start_*_s``: from starting Python to the first answer, median of five; the slowest model.
- ``aa_difference``: p50 of a model over that of itself in the same run, less one; the worst model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from reuters import say_machine

from distill_tasks.config import load_config
from distill_tasks.data.rows import read_corpus
from distill_tasks.measuring.footprint import Footprint, measure_footprint, pin, read_requirements
from distill_tasks.measuring.latency import MeasureConfig
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Grid, first_trials
from distill_tasks.results.outcomes import Latencies
from distill_tasks.results.references import TEACHER, StudentReference
from distill_tasks.results.run import OpenRun
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.scoring.parity import Parity
from distill_tasks.stages.export import export_all
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.measure import measure_all
from distill_tasks.stages.tune import tune_objective
from distill_tasks.students import BagOfWordsStudent, LayersStudent, StaticStudent
from distill_tasks.students.formats import ExportConfig

ROOT = Path(__file__).parents[1]
STUDENTS = (
    LayersStudent(layers=2),
    StaticStudent(dimensions=64),
    StaticStudent(dimensions=256),
    BagOfWordsStudent(),
)
TORCH, INT8 = "layers-2", "layers-2-onnx-int8"
STARTS = 5


def main() -> None:
    """Print the tables and the JSON line."""
    config = load_config(ROOT / "examples/reuters/distill.yaml").model_copy(
        update={
            "students": STUDENTS,
            "measure": MeasureConfig(calls=400, batch_rows=(1, 32)),
            "export": ExportConfig(variants=("onnx", "onnx_int8", "onnx_int8_static")),
        }
    )
    corpus = read_corpus(config.data, config.seed)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher).open()
    run = OpenRun(config, corpus, teacher, labels, config.loss.usual_objective)
    run = replace(run, objective=tune_objective(run).objective)
    trained = [train_one(run, trial) for trial in first_trials(config)]
    students = export_all(run, Grid(trained)).students
    evaluator = Evaluator(run, "held_out")
    latencies = measure_all(run, students)
    starts = start_all(students, corpus.splits["held_out"].texts[0])
    installed = {s.name: read_requirements(s.folder) for s in students if s.variant != "torch"}
    alone, beside = measure_environments(sorted(set(installed.values())))
    parities = evaluator.compare_variants(students, evaluator.ask_candidates(students))
    print(markdown_table(list_students(evaluator, students, latencies, parities)), end="\n\n")
    print(markdown_table(list_serving(students, starts, installed, alone, beside)), end="\n\n")
    print(say_machine(threads=1), end="\n\n")
    times = {name: latency.p50_ms for name, latency in latencies.by_name.items()}
    fastest = min(time for name, time in times.items() if name != TEACHER)
    by_variant = {student.name: student.variant for student in students}
    figures = {
        "int8_speedup": times[TORCH] / times[INT8],
        "int8_accuracy_change_points": 100 * parities[INT8].change.value,
        "fastest_over_teacher": times[TEACHER] / fastest,
        "smallest_p50_us": 1000 * fastest,
        "serving_env_mb": beside[installed[INT8]],
        "cold_start_numpy_s": max(
            start.cold_start_s for name, start in starts.items() if by_variant[name] == "numpy"
        ),
        "cold_start_onnx_s": max(
            start.cold_start_s for name, start in starts.items() if "onnx" in by_variant[name]
        ),
        "aa_difference": max(latency.aa_p50 for latency in latencies.by_name.values()),
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def start_all(students: list[StudentReference], text: str) -> dict[str, Footprint]:
    """Start every student several times, in turns, and return the median of each."""
    starts: dict[str, list[Footprint]] = {student.name: [] for student in students}
    for _ in range(STARTS):
        for student in students:
            starts[student.name].append(measure_footprint(student.folder, text, threads=1))
    return {
        name: Footprint(
            found[0].installed_mb,
            median(one.cold_start_s for one in found),
            median(one.resident_mb for one in found),
        )
        for name, found in starts.items()
    }


def measure_environments(
    needs: list[tuple[str, ...]],
) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """Return the megabytes of packages installed alone, and on top of mlflow."""
    with tempfile.TemporaryDirectory() as folder:
        empty, mlflow = Path(folder) / "empty", Path(folder) / "mlflow"
        subprocess.run([sys.executable, "-m", "venv", empty], check=True)  # noqa: S603
        install(mlflow, empty, ("mlflow",))
        alone, beside = {}, {}
        for number, names in enumerate(needs):
            alone[names] = install(Path(folder) / f"alone-{number}", empty, names)
            beside[names] = install(Path(folder) / f"beside-{number}", mlflow, names)
    return alone, beside


def install(folder: Path, base: Path, names: tuple[str, ...]) -> float:
    """Install pinned packages into a copy of an environment; return the megabytes it grows by."""
    shutil.copytree(base, folder, symlinks=True)
    before = _megabytes(folder)
    environment = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    command = [folder / "bin/python", "-m", "pip", "install", "--quiet", *pin(names)]
    subprocess.run(  # noqa: S603
        command, check=True, env=environment, stdout=sys.stderr, stderr=subprocess.DEVNULL
    )
    return _megabytes(folder) - before


def _megabytes(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def list_students(
    evaluator: Evaluator,
    students: list[StudentReference],
    latencies: Latencies,
    parities: dict[str, Parity],
) -> list[dict[str, str]]:
    """Return quality and latency of the teacher and every student."""
    teacher, rows = latencies.by_name[TEACHER], []
    cards = {TEACHER: evaluator.score("teacher", [evaluator.eval_split.teacher])}
    cards |= {student.name: evaluator.score_seeds([student]) for student in students}
    for name, card in cards.items():
        latency, parity = latencies.by_name[name], parities.get(name)
        rows.append(
            {
                "model": name,
                "accuracy": str(card.quality),
                "against torch": parity.change.points if parity else "–",
                "other labels": f"{parity.flips} of {parity.answers:,}" if parity else "–",
                "p50 ms": _with_ends(latency.p50_ms, latency.intervals["p50_ms"]),
                "p95 ms": _with_ends(latency.p95_ms, latency.intervals["p95_ms"]),
                "speed-up p50": f"{teacher.p50_ms / latency.p50_ms:.3g}×",
                **{f"rows/s of {n}": f"{rate:,.0f}" for n, rate in latency.rows_per_s.items()},
                "A/A p50": f"{100 * latency.aa_p50:.1f} %",
            }
        )
    return rows


def list_serving(
    students: list[StudentReference],
    starts: dict[str, Footprint],
    installed: dict[str, tuple[str, ...]],
    alone: dict[tuple[str, ...], float],
    beside: dict[tuple[str, ...], float],
) -> list[dict[str, str]]:
    """Return what serving each student takes beside time."""
    return [
        {
            "model": student.name,
            "needs": ", ".join(read_requirements(student.folder)),
            "alone MB": f"{alone[installed[student.name]]:.0f}"
            if student.name in installed
            else f"{starts[student.name].installed_mb:.0f}",
            "beside mlflow MB": f"{beside[installed[student.name]]:.0f}"
            if student.name in installed
            else "–",
            "cold start s": f"{starts[student.name].cold_start_s:.2f}",
            "resident MB": f"{starts[student.name].resident_mb:.0f}",
            "folder MB": f"{student.disk_mb:.1f}",
            "parameters": f"{student.parameters:,}",
        }
        for student in students
    ]


def _with_ends(value: float, ends: tuple[float, float]) -> str:
    return f"{value:.3g} [{ends[0]:.3g}, {ends[1]:.3g}]"


if __name__ == "__main__":
    main()
