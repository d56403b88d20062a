"""Answers to rows that nobody learnt from, and draws from them: what the choice is tried on.

A teacher and a few students learn once from a fixed part of a data set and answer all other rows;
the product's own store keeps that in .potstill/benchmarks/choice. Every draw then takes three
disjoint parts of those rows: validation with gold, rows that the teacher alone has labelled, and a
held-out set with gold. All of them together are the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from newsgroups import DESK, HOBBIES, read_groups
from numpy.typing import NDArray
from reuters import ROOT, SEED, read_official

from distill_tasks.config import DistillConfig, parse_config
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import first_trials
from distill_tasks.results.outcomes import Latencies
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.scoring.scorecard import EvalSplit, Predictions
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.measure import measure_all
from distill_tasks.stages.prepare import check_config

FOLDER = ROOT / ".potstill/benchmarks/choice"
STUDENTS = [
    {"family": "layers", "layers": 1},
    {"family": "static", "dimensions": [16, 64, 256]},
    {"family": "bag_of_words", "max_features": [1000, 10_000, 50_000]},
]
TRANSFER_ROWS = 2000
FEWEST_GOLD = 2
"""Rows with gold that every class has at least."""

Rows = NDArray[np.int64]
"""Numbers of rows."""
Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class DataSet:
    """Rows to distil on, how many of them have gold, and what their champion must keep."""

    name: str
    gold_rows: int
    promise: float
    """Share of the teacher's accuracy."""

    def read(self) -> pd.DataFrame:
        """Return all official rows, train and test together, no text twice."""
        parts = [
            read_groups(GROUPS[self.name], part)
            if self.name in GROUPS
            else read_official(self.name, part)
            for part in ("train", "test")
        ]
        return pd.concat(parts).drop_duplicates("text", ignore_index=True)


GROUPS = {"newsgroups-desk": DESK, "newsgroups-hobbies": HOBBIES}
DATA_SETS = (
    DataSet("r8", 400, 0.98),
    DataSet("r52", 800, 0.98),
    DataSet("newsgroups-desk", 500, 0.98),
    DataSet("newsgroups-hobbies", 500, 0.98),
)


@dataclass(frozen=True)
class Draw:
    """Disjoint rows, as one run would have them, and the times that it would measure."""

    validation: Rows
    scored: Rows
    """Gold is hidden; the teacher's labels are not."""
    held_out: Rows
    p95_ms: NDArray[np.float64]
    """Of every candidate."""


@dataclass(frozen=True)
class Sizes:
    """Rows of each part of a draw."""

    validation: int = 150
    scored: int = 1000
    held_out: int = 1200


@dataclass(frozen=True)
class Answered:
    """What the teacher and all candidates say of the rows that nobody learnt from."""

    data: DataSet
    rows: EvalSplit
    said: dict[str, Predictions]
    """By candidate."""
    students: list[StudentReference]
    latencies: Latencies

    @property
    def names(self) -> list[str]:
        """The candidates, in the order of all arrays."""
        return list(self.said)

    @cached_property
    def hits(self) -> Hits:
        """Which rows each candidate gets right (candidates, rows)."""
        return np.stack([self.find_hits(said) for said in self.said.values()])

    @cached_property
    def teacher_hits(self) -> Hits:
        """Which rows the teacher gets right (rows,)."""
        return self.find_hits(self.rows.teacher)

    @property
    def p95_ms(self) -> NDArray[np.float64]:
        """The p95 latency of every candidate as it was measured."""
        return np.array([self.latencies.by_name[name].p95_ms for name in self.names])

    def find_hits(self, said: Predictions) -> Hits:
        """Return which rows a model gets right (rows,)."""
        assert self.rows.gold is not None
        hits: Hits = (self.rows.decide(said) == self.rows.gold).all(axis=1)
        return hits


def draw_rows(rows: int, sizes: Sizes, generator: np.random.Generator) -> tuple[Rows, Rows, Rows]:
    """Return disjoint rows for validation, for the teacher's labels alone, and held out.

    Raises ValueError where there are too few.
    """
    ends = np.cumsum([sizes.validation, sizes.scored, sizes.held_out])
    if ends[-1] > rows:
        raise ValueError(f"a draw takes {ends[-1]:,} rows, there are {rows:,}")
    validation, scored, held_out, _ = np.split(generator.permutation(rows), ends)
    return validation, scored, held_out


def draw_all(answered: Answered, draws: int, sizes: Sizes) -> Iterator[Draw]:
    """Yield so many seeded draws; times vary within the noise that was measured."""
    generator, band = np.random.default_rng(SEED), answered.latencies.band
    for _ in range(draws):
        parts = draw_rows(len(answered.rows.split), sizes, generator)
        noise = generator.uniform(-band / 2, band / 2, len(answered.said))
        yield Draw(*parts, answered.p95_ms * np.exp(noise))


def answer(data: DataSet) -> Answered:
    """Train and ask all that was not yet, and return the answers."""
    config = configure(data)
    corpus = check_config(config)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher).open()
    run = OpenRun(config, corpus, teacher, labels, config.loss.usual_objective)
    students = []
    for trial in first_trials(config):
        print(f"{data.name}: {trial.name}", file=sys.stderr)
        students.append(train_one(run, trial))
    evaluator = Evaluator(run, "held_out")
    said = {student.candidate: evaluator.ask(student) for student in students}
    return Answered(data, evaluator.eval_split, said, students, measure_all(run, students))


def configure(data: DataSet) -> DistillConfig:
    """Write the parts of a data set and return the configuration that reads them."""
    folder = FOLDER / data.name
    folder.mkdir(parents=True, exist_ok=True)
    gold, transfer, rest = split(data.read(), data.gold_rows)
    splits = {"train": gold, "transfer": transfer[["text"]], "held_out": rest}
    for name, frame in splits.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    base = str(ROOT / "examples/reuters/data/minilm")
    written = {
        "name": data.name,
        "seed": SEED,
        "work_dir": str(folder / "store"),
        "data": {name: str(folder / f"{name}.parquet") for name in splits}
        | {"validation_share": 0.2},
        "teacher": {"kind": "finetune", "base": base, "max_length": 96, "epochs": 6},
        "students": STUDENTS,
        "select": {"scored_transfer": 0},  # every draw holds back rows of its own
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "registry": {"model": data.name},
    }
    return parse_config(written, data.name)


def split(frame: pd.DataFrame, gold_rows: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return rows with gold, a few of every class among them, rows to be labelled, the others."""
    shuffled = frame.sample(frac=1, random_state=SEED, ignore_index=True)
    place = shuffled.groupby("label").cumcount()
    order = np.lexsort([np.arange(len(shuffled)), place >= FEWEST_GOLD])
    ends = [gold_rows, gold_rows + TRANSFER_ROWS]
    gold, transfer, rest = (shuffled.iloc[part] for part in np.split(order, ends))
    return gold, transfer, rest
