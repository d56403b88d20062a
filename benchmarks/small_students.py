"""How long do the small students train? Reuters R8, all 5,485 official training rows.

`bag_of_words` and `static` are trained with their defaults from texts to the finished folder, and
beside them what one would write by hand: scikit-learn's TF-IDF of the same terms and logistic
regression on gold. All take turns, three times after a first one that is not counted; times are
medians. Only time counts here, so the regression on gold stands for the teacher; accuracy is that
on the official test set. Prints a table for people and, as its last line, one JSON object. Needs
`make demo` first, for the base model that `static` starts from:

- ``bag_of_words_s``: seconds to train a bag of words.
- ``static_s``: seconds to train a static student, the teacher's vocabulary passed through included.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray
from reuters import configure, say_machine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.data.tables import read_table
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.scoring.predictions import answer_sorted
from distill_tasks.serving.served_model import open_model
from distill_tasks.students import BagOfWordsStudent, StaticStudent, StudentConfig
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective

TIMES = 3
STUDENTS: tuple[StudentConfig, ...] = (BagOfWordsStudent(), StaticStudent())
BY_HAND = "scikit-learn by hand"

Answer = Callable[[Sequence[str]], NDArray[np.int64]]
"""Gives the numbers of the classes of texts."""


@dataclass
class Found:
    """What several trainings of one contender took, and how good they came out."""

    seconds: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def main() -> None:
    """Print the table and the JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        training_set, held_out = make_training_set(Path(folder))
        contenders: dict[str, Callable[[], Answer]] = {
            **{
                student.family: lambda student=student: train(student, training_set, Path(folder))
                for student in STUDENTS
            },
            BY_HAND: lambda: by_hand(training_set.rows).predict,
        }
        found = {name: Found() for name in contenders}
        for turn in range(TIMES + 1):
            for name, contender in contenders.items():
                start = time.perf_counter()
                answer = contender()
                seconds = time.perf_counter() - start
                print(f"turn {turn}: {name} {seconds:.2f} s", file=sys.stderr)
                if turn:
                    found[name].seconds.append(seconds)
                    right = answer(held_out.texts) == held_out.gold
                    found[name].accuracies.append(float(right.mean()))
    table = [
        {
            "trained": name,
            "median s": f"{median(one.seconds):.2f}",
            "from s": f"{min(one.seconds):.2f}",
            "to s": f"{max(one.seconds):.2f}",
            "accuracy": f"{fmean(one.accuracies):.4f}",
        }
        for name, one in found.items()
    ]
    print(markdown_table(table), end="\n\n")
    print(say_machine(), end="\n\n")
    figures = {f"{student.family}_s": median(found[student.family].seconds) for student in STUDENTS}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def make_training_set(folder: Path) -> tuple[TrainingSet, Split]:
    """Return all training rows with gold and the answers of a stand-in, and the test rows."""
    config = configure("r8", folder)
    frames = [read_table(config.data.train, "train"), read_table(config.data.held_out, "held_out")]
    classes = tuple(sorted(frames[0]["label"].unique()))
    rows, asked = (
        Split(tuple(frame["text"]), np.array([*map(classes.index, frame["label"])]))
        for frame in frames
    )
    answers = by_hand(rows).decision_function(rows.texts).astype(np.float32)
    base = Checkpoint(config.teacher.base, None, config.teacher.max_length)
    objective = Objective(config.loss.temperature, config.loss.alpha)
    soft_labels = SoftLabels(answers, classes, "by hand")
    return TrainingSet(rows, soft_labels, asked, classes, objective, config.seed, base), asked


def by_hand(rows: Split) -> Pipeline:
    """Return TF-IDF and logistic regression, fitted on gold."""
    words = BagOfWordsStudent()
    vectorizer = TfidfVectorizer(
        ngram_range=(1, words.ngrams), max_features=words.max_features, sublinear_tf=True
    )
    return make_pipeline(vectorizer, LogisticRegression(C=30, max_iter=1000)).fit(
        rows.texts, rows.gold
    )


def train(student: StudentConfig, training_set: TrainingSet, folder: Path) -> Answer:
    """Train a student into a folder of its own and return what opens it and asks."""
    made = Path(tempfile.mkdtemp(dir=folder))
    student.train(training_set, made)
    return lambda texts: answer_sorted(open_model(made), texts, student.name).argmax(axis=1)


if __name__ == "__main__":
    main()
