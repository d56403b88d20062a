"""What several carvings of validation are worth: students compared on 1 and on 5, with the truth.

Eight groups of 20 Newsgroups, 20 draws of 300 rows with gold and 1,500 without; the teacher is a
TF-IDF regression on half of the others. Four bags of words are trained on each draw, and again on
four further carvings. What both ways say of the difference between two of them is compared with
the difference on 3,000 rows that neither has seen.
Prints a table and, as its last line, one JSON object:

- ``error_ratio``: root mean square error of the differences on 5 carvings, as a share of that on 1.
- ``named_1``, ``named_5``: share of pairs, ties in truth left out, whose better one is named.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from newsgroups import DESK, read_groups
from numpy.typing import NDArray
from reuters import SEED, say_machine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from distill_tasks.config import DistillConfig, parse_config
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.cross_validation import pool_gold
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import first_trials
from distill_tasks.results.run import start_run
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.scoring.intervals import plain_value
from distill_tasks.scoring.scorecard import quality_statistic
from distill_tasks.stages.cross_validate import train_folds
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import check_config, keep_corpus

DRAWS, CARVINGS = 20, 5
GOLD_ROWS, TRANSFER_ROWS, HELD_OUT_ROWS = 300, 1500, 3000


def main() -> None:
    """Print the table and the JSON line."""
    parts = [read_groups(DESK, "train"), read_groups(DESK, "test")]
    rows = pd.concat(parts).drop_duplicates("text")
    generator = np.random.default_rng(SEED)
    gaps = []
    for number in range(DRAWS):
        print(f"draw {number + 1} of {DRAWS}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            order = generator.permutation(len(rows))
            gaps.append(compare(write_draw(rows.iloc[order], Path(folder))))
    found = np.concatenate(gaps)
    errors = {1: found[:, 0] - found[:, 2], CARVINGS: found[:, 1] - found[:, 2]}
    rmse = {carvings: float(np.sqrt((error**2).mean())) for carvings, error in errors.items()}
    differ = found[found[:, 2] != 0]
    named = (np.sign(differ[:, :2]) == np.sign(differ[:, 2:])).mean(axis=0)
    table = [
        {
            "carvings": str(carvings),
            "error of a difference, points": f"{100 * rmse[carvings]:.2f}",
            "pairs named right": f"{100 * share:.0f} %",
        }
        for carvings, share in zip(rmse, named, strict=True)
    ]
    print(markdown_table(table), end="\n\n")
    print(say_machine(), end="\n\n")
    figures = {
        "error_ratio": round(rmse[CARVINGS] / rmse[1], 3),
        "named_1": round(float(named[0]), 3),
        "named_5": round(float(named[1]), 3),
    }
    print(json.dumps(figures))


def write_draw(rows: pd.DataFrame, folder: Path) -> DistillConfig:
    """Write the parts of one draw, a teacher's answers to them, and return their configuration."""
    ends = np.cumsum([GOLD_ROWS, TRANSFER_ROWS, HELD_OUT_ROWS])
    gold, transfer, held_out, others = (
        rows.iloc[start:end] for start, end in itertools.pairwise([0, *ends, len(rows)])
    )
    teacher = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10))
    teacher.fit(others["text"], others["label"])
    asked = pd.concat([gold, transfer, held_out])["text"]
    answers = pd.DataFrame(teacher.predict_proba(asked), columns=teacher.classes_)
    answers.insert(0, "text", asked.to_numpy())
    answers.drop_duplicates("text").to_parquet(folder / "answers.parquet", index=False)
    splits = {"train": gold, "transfer": transfer[["text"]], "held_out": held_out}
    for name, part in splits.items():
        part.to_parquet(folder / f"{name}.parquet", index=False)
    written = {
        "name": "carvings",
        "seed": SEED,
        "work_dir": str(folder / "store"),
        "data": {name: str(folder / f"{name}.parquet") for name in splits},
        "teacher": {"kind": "saved", "path": str(folder / "answers.parquet")},
        "students": [{"family": "bag_of_words", "max_features": [300, 1000, 3000, 10000]}],
        "evaluate": {"validation_folds": CARVINGS},
        "select": {"scored_transfer": 0},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "registry": {"model": "carvings"},
    }
    return parse_config(written, "carvings")


def compare(config: DistillConfig) -> NDArray[np.float64]:
    """Return the difference of every pair on 1 carving, on all, and in truth (pairs, 3)."""
    corpus = check_config(config)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher)
    run = start_run(config, keep_corpus(config, corpus), teacher, labels).open()
    trials = first_trials(config)
    students, cross = [train_one(run, trial) for trial in trials], train_folds(run, trials)
    first, truth = Evaluator(run, "validation"), Evaluator(run, "held_out")
    pool = pool_gold(first, students, cross)
    qualities = []
    for student in students:
        alone = quality_statistic(first.eval_split, [first.ask(student)])
        qualities.append(
            (
                plain_value(alone, pool.first),
                plain_value(pool.add_gain(student.name, alone), pool.rows),
                plain_value(
                    quality_statistic(truth.eval_split, [truth.ask(student)]), HELD_OUT_ROWS
                ),
            )
        )
    pairs = itertools.combinations(np.array(qualities), 2)
    return np.stack([one - other for one, other in pairs])


if __name__ == "__main__":
    main()
