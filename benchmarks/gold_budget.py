"""How many gold rows does the demo want? Teacher, words and students on R8 at several budgets.

For each budget the teacher is fine-tuned on the gold rows, and every student is trained twice for
the same number of steps: on the teacher's answers to all rows, and on the gold rows alone. Prints a
table for people and, as its last line, one JSON object. Needs `make demo` first, for the data.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pandas as pd
from reuters import SEED, read_official
from sklearn.model_selection import train_test_split

from distill_tasks.config import DistillConfig, load_config
from distill_tasks.data.corpus import Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.settings import DataConfig
from distill_tasks.reporting.pages import markdown_table
from distill_tasks.results.run import OpenRun, make_training_set
from distill_tasks.results.teacher import make_teacher
from distill_tasks.scoring.predictions import Answering, answer_sorted
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.label import label_rows
from distill_tasks.students import (
    BagOfWordsStudent,
    LayersStudent,
    StaticStudent,
    StudentConfig,
    train_student,
)
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.controls import WordsOnGold, without_teacher
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples/reuters/data"
OBJECTIVE = Objective(temperature=1.0, alpha=0.9)
STUDENTS: tuple[StudentConfig, ...] = (
    LayersStudent(layers=1),
    StaticStudent(),
    BagOfWordsStudent(),
)


def accuracy(model: Answering, held_out: Split) -> float:
    """Return the share of held-out rows that a model gets right."""
    said = answer_sorted(model, held_out.texts, "held_out").argmax(axis=1)
    return float((said == held_out.gold).mean())


def at_budget(config: DistillConfig, gold_rows: int, folder: Path) -> dict[str, float]:
    """Return held-out accuracies at one gold budget, validation included in the budget."""
    corpus = read_corpus(split_rows(config, gold_rows, folder), config.seed)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher).open()
    held_out = corpus.splits["held_out"]
    said = labels.read(held_out.texts).logits.argmax(axis=1)
    words = WordsOnGold(corpus.splits["train"], len(corpus.classes), corpus.problem)
    found = {
        "teacher": float((said == held_out.gold).mean()),
        "words on gold": accuracy(words, held_out),
    }
    training_set = make_training_set(
        OpenRun(config, corpus, teacher, labels, OBJECTIVE), config.seed
    )
    base = Checkpoint(config.teacher.base, None, config.teacher.max_length)
    for student in STUDENTS:
        found[f"{student.name} distilled"] = trained(student, training_set, held_out)
        alone = without_teacher(training_set, student, base)
        found[f"{student.name} gold alone"] = trained(student, alone, held_out)
    return found


def trained(student: StudentConfig, training_set: TrainingSet, held_out: Split) -> float:
    """Return the held-out accuracy of a student after training."""
    with tempfile.TemporaryDirectory() as folder:
        train_student(student, training_set, Path(folder))
        return accuracy(open_model(folder), held_out)


def split_rows(config: DistillConfig, gold_rows: int, folder: Path) -> DataConfig:
    """Write the demo's training rows with another number of gold ones; return the data settings."""
    rows = read_official("r8", "train")
    gold, rest = train_test_split(
        rows, train_size=gold_rows, stratify=rows["label"], random_state=SEED
    )
    paths = {}
    for name, frame in {"train": gold, "transfer": pd.DataFrame({"text": rest["text"]})}.items():
        paths[name] = str(folder / f"{name}.parquet")
        frame.to_parquet(paths[name], index=False)
    return config.data.model_copy(update=paths)


def main() -> None:
    """Print the table and the JSON line."""
    budgets = [int(word) for word in sys.argv[1:]] or [300, 600]
    config = load_config(ROOT / "examples/reuters/distill.yaml")
    found = {}
    for budget in budgets:
        with tempfile.TemporaryDirectory() as folder:
            found[budget] = at_budget(config, budget, Path(folder))
    table = [
        {"gold rows": str(budget), **{name: f"{value:.4f}" for name, value in row.items()}}
        for budget, row in found.items()
    ]
    print(markdown_table(table))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
