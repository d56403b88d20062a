"""Is it worth asking the teacher about the rows of which a student is least sure? R8 and R52.

The official training rows without their gold are what may be asked about. The teacher is a stand-in
that errs as teachers do: TF-IDF of characters and logistic regression on gold, and each row is
answered by one that was fitted on other rows. Students are bags of single words that learn its
answers to the first 250 to 2,000 rows, taken as `data.sample` takes them: `random`, or `uncertain`,
in rounds of which three rows in ten are random. The student that chooses is of the same kind. Five
seeds give five orders. Accuracy and macro F1 are those on the official test rows. Prints tables for
people and, as its last line, one JSON object:

- ``gain_r8``, ``gain_r52``: points of accuracy that `uncertain` is ahead of `random`, the mean over
  the numbers of answers, and its 95 % interval (Student's t over the seeds).
- ``gain_f1_r8``, ``gain_f1_r52``: the same of macro F1.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from reuters import Name, read_official, say_machine
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline

from distill_tasks.config import DistillConfig, parse_config
from distill_tasks.data.rows import read_corpus
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.run import OpenRun, make_training_set
from distill_tasks.results.sampling import find_sample
from distill_tasks.results.teacher import make_teacher
from distill_tasks.scoring.predictions import answer_sorted
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.label import label_rows
from distill_tasks.students import QUICKEST

SEEDS = range(5)
ANSWERS = (250, 500, 1_000, 2_000)
KINDS = ("random", "uncertain")
FOLDS = 3
UNKNOWN = -12.0
"""The log-probability of a class that a fold's teacher has never seen."""
VALIDATION_ROWS = 100
"""Test rows that stand for validation, from which nothing is learnt here."""
METRICS = ("accuracy", "macro F1")

Scores = dict[tuple[str, int, int], tuple[float, float]]
"""Accuracy and macro F1 by kind of sample, seed and number of answers."""


@dataclass(frozen=True)
class Case:
    """One data set: the folder with its tables, and its official test rows."""

    name: Name
    folder: Path
    test: pd.DataFrame
    teacher: float
    """The teacher's accuracy on the rows that may be asked about."""


def main() -> None:
    """Print the tables and the JSON line."""
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("r8", "r52"):
            case = write_case(name, Path(folder))
            scores = {}
            for kind in KINDS:
                for seed in SEEDS:
                    scores |= score_sample(case, kind, seed)
                    print(f"{name} {kind} seed {seed}", file=sys.stderr)
            print(f"{name.upper()}, a teacher that is right in {case.teacher:.1%}:\n")
            print(markdown_table([describe(scores, answers) for answers in ANSWERS]), end="\n\n")
            figures[f"gain_{name}"] = find_gain(scores, 0)
            figures[f"gain_f1_{name}"] = find_gain(scores, 1)
    print(say_machine(), end="\n\n")
    print(json.dumps(figures))


def write_case(name: Name, root: Path) -> Case:
    """Write the rows of a data set, and the answers of its teacher."""
    folder = root / name
    folder.mkdir()
    pool = read_official(name, "train").drop_duplicates("text")
    test = read_official(name, "test")
    answers = answer_others(pool)
    said = answers.idxmax(axis=1).to_numpy()
    rows = pd.concat([pool, test])[["text"]].drop_duplicates()
    known = answers.assign(text=pool["text"].to_numpy())
    rows.merge(known, how="left").fillna(0.0).to_parquet(folder / "answers.parquet", index=False)
    parts = {
        "train": pool,
        "validation": test[:VALIDATION_ROWS],
        "held_out": test[VALIDATION_ROWS:],
    }
    for split, frame in parts.items():
        frame[["text"]].to_parquet(folder / f"{split}.parquet", index=False)
    return Case(name, folder, test, float((said == pool["label"].to_numpy()).mean()))


def answer_others(pool: pd.DataFrame) -> pd.DataFrame:
    """Return log-probabilities (rows, classes) of each row by a model fitted on other rows."""
    classes = sorted(pool["label"].unique())
    answers = pd.DataFrame(UNKNOWN, index=range(len(pool)), columns=classes)
    for learnt, asked in KFold(FOLDS, shuffle=True, random_state=0).split(pool):
        model = make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), max_features=10_000),
            LogisticRegression(C=30, tol=1e-3),
        ).fit(pool["text"].iloc[learnt], pool["label"].iloc[learnt])
        said = model.predict_log_proba(pool["text"].iloc[asked])
        answers.loc[asked, model.classes_] = np.maximum(said, UNKNOWN)
    return answers


def score_sample(case: Case, kind: str, seed: int) -> Scores:
    """Return the scores of students of the first answers of one sample."""
    config = configure(case, kind, seed)
    classes = config.teacher.check(config.data, config.problem)
    corpus = read_corpus(config.data, config.seed, classes)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher).open()
    order = find_sample(config, corpus)
    assert order is not None
    scores = {}
    for answers in ANSWERS:
        part = corpus.keep_texts(set(order[:answers]), ("train",))
        run = OpenRun(config, part, teacher, labels, config.loss.usual_objective)
        said = [corpus.classes[number] for number in train(run, case.test["text"].tolist())]
        gold = case.test["label"].to_numpy()
        scores[kind, seed, answers] = (
            float((gold == said).mean()),
            float(f1_score(gold, said, average="macro", zero_division=0)),
        )
    return scores


def configure(case: Case, kind: str, seed: int) -> DistillConfig:
    """Return a configuration that asks about the most answers."""
    tables = ("train", "validation", "held_out")
    written = {
        "name": case.name,
        "seed": seed,
        "work_dir": str(case.folder / "work"),
        "data": {
            **{name: str(case.folder / f"{name}.parquet") for name in tables},
            "label_column": None,
            "sample": {"kind": kind, "rows": max(ANSWERS)},
        },
        "teacher": {
            "kind": "saved",
            "path": str(case.folder / "answers.parquet"),
            "values": "logits",
        },
        "students": [{"family": "bag_of_words"}],
        "registry": {"model": case.name},
    }
    return parse_config(written, case.name)


def train(run: OpenRun, texts: list[str]) -> NDArray[np.int64]:
    """Return what a student of a run's answers says of texts, as class numbers."""
    with tempfile.TemporaryDirectory() as folder:
        QUICKEST.train(make_training_set(run, run.config.seed), Path(folder))
        return answer_sorted(open_model(folder), texts, QUICKEST.name).argmax(axis=1)


def describe(scores: Scores, answers: int) -> dict[str, str]:
    """Return the row of a number of answers in the table."""
    row = {"answers": f"{answers:,}"}
    for place, metric in enumerate(METRICS):
        for kind in KINDS:
            found = [scores[kind, seed, answers][place] for seed in SEEDS]
            row[f"{metric}, {kind}"] = f"{np.mean(found):.4f} ± {np.std(found, ddof=1):.4f}"
    return row


def find_gain(scores: Scores, place: int) -> list[float]:
    """Return how many points `uncertain` is ahead in a metric, and both ends of the interval."""

    def take(kind: str) -> NDArray[np.float64]:
        return np.array([[scores[kind, seed, n][place] for n in ANSWERS] for seed in SEEDS])

    gains = 100 * (take("uncertain") - take("random")).mean(axis=1)
    low, high = stats.t.interval(0.95, len(gains) - 1, gains.mean(), stats.sem(gains))
    return [round(float(value), 2) for value in (gains.mean(), low, high)]


if __name__ == "__main__":
    main()
