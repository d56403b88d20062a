"""Is a teacher of 50 classes known by the 20 log-probabilities that a server lists? Simulated.

Teachers whose whole distribution is known, list their 20 likeliest tokens. The classes
that are not listed either share what is left of the probability, as `from_top_logprobs` lets them,
or are dropped: the listed ones are normalised, and the others get a floor of 10⁻⁶. Beside it stands
the floor that comes nearest to the truth, which nobody could choose without knowing the truth.
Teachers are flat, usual or sharp, and answer with codes alone, or with up to a thousand other
tokens too. Then bags of words learn from teachers that are right about their texts (the posterior
of the model that drew them), which are long, so that the teacher is sure, or short: five training
sets of 2,000 texts, each told in full, restored and dropped. Prints tables for people and, as its
last line, one JSON object:

- ``kl_restored``: KL of the restored distributions to the true ones, the mean over all teachers.
- ``kl_dropped``: the same of those without a tail.
- ``kl_best_floor``: the same with the best floor for each teacher.
- ``student_difference``: held-out accuracy of students of restored answers minus that of dropped
  ones, and its 95 % interval, for the teacher for which it is less; they are paired by texts, and
  the mean is over training sets.
- ``student_difference_short``: the same for the short texts.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reuters import say_machine
from scipy.special import log_softmax, rel_entr

from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.llm.distributions import from_top_logprobs
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.scoring.intervals import Figure, estimate
from distill_tasks.scoring.statistics import average, difference, mean
from distill_tasks.serving.served_model import open_model
from distill_tasks.students.bag_of_words import BagOfWordsStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.objective import Objective

CLASSES, CAP = 50, 20
CODES = tuple(f"class {number}" for number in range(CLASSES))
ROWS = 1_000
"""Answers of each simulated teacher."""
SPREADS = {"flat": 1.0, "usual": 2.0, "sharp": 4.0}
"""Standard deviation of the scores of all tokens."""
OTHERS = (0, 100, 1_000)
"""Tokens that are no code; their mean score is three deviations below that of codes."""
DROPPED = 1e-6
FLOORS = (1e-9, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)

WORDS, GROUPS = 1_500, 10
TEXT_WORDS = {"long": 15, "short": 5}
TRAIN_ROWS, HELD_OUT_ROWS, SEEDS = 2_000, 3_000, 5

Logs = NDArray[np.float64]
"""Log-probabilities (rows, tokens), those of the classes first."""


@dataclass(frozen=True)
class Told:
    """Distributions of the classes (rows, classes), as logarithms."""

    true: Logs
    restored: Logs
    dropped: dict[float, Logs]
    """By the floor of what was dropped."""
    off_list: float
    """Mean probability that answers are said to be no class."""

    def kl(self, told: Logs) -> float:
        """Return the KL of some distributions to the true ones, in nats, the mean over rows."""
        return float(rel_entr(np.exp(self.true), np.exp(told)).sum(axis=1).mean())

    @property
    def best_floor(self) -> float:
        """The floor that comes nearest to the truth."""
        return min(self.dropped, key=lambda floor: self.kl(self.dropped[floor]))


def main() -> None:
    """Print the tables and the JSON line."""
    teachers = {
        (name, others): tell(draw_answers(spread, others))
        for name, spread in SPREADS.items()
        for others in OTHERS
    }
    print(markdown_table([describe(*key, told) for key, told in teachers.items()]), end="\n\n")
    differences = {}
    for length in TEXT_WORDS:
        table, differences[length] = compare_students(length)
        print(markdown_table(table), end="\n\n")
    print(say_machine(), end="\n\n")
    all_told = list(teachers.values())
    figures = {
        "kl_restored": np.mean([told.kl(told.restored) for told in all_told]),
        "kl_dropped": np.mean([told.kl(told.dropped[DROPPED]) for told in all_told]),
        "kl_best_floor": np.mean([told.kl(told.dropped[told.best_floor]) for told in all_told]),
    }
    students = {
        "student_difference": ends(min(differences.values(), key=lambda one: one.value)),
        "student_difference_short": ends(differences["short"]),
    }
    print(json.dumps({name: round(float(kl), 4) for name, kl in figures.items()} | students))


def draw_answers(spread: float, others: int, rows: int = ROWS) -> Logs:
    """Return the answers of a simulated teacher to so many texts."""
    scores = np.random.default_rng(0).standard_normal((rows, CLASSES + others))
    scores[:, CLASSES:] -= 3
    return log_softmax(spread * scores, axis=1)


def tell(answers: Logs) -> Told:
    """Return what is known of answers of which the server lists the likeliest tokens."""
    listed = np.argsort(-answers, axis=1, kind="stable")[:, :CAP]
    tokens = [*CODES, *(f"other {number}" for number in range(answers.shape[1] - CLASSES))]
    replies = [
        from_top_logprobs([(tokens[number], row[number]) for number in numbers], CODES)
        for row, numbers in zip(answers, listed, strict=True)
    ]
    kept = np.full_like(answers, -np.inf)
    np.put_along_axis(kept, listed, np.take_along_axis(answers, listed, axis=1), axis=1)
    kept = log_softmax(kept[:, :CLASSES], axis=1)
    return Told(
        log_softmax(answers[:, :CLASSES], axis=1),
        np.stack([reply.log_probabilities for reply in replies]),
        {floor: log_softmax(np.maximum(kept, np.log(floor)), axis=1) for floor in FLOORS},
        float(np.mean([reply.off_list for reply in replies])),
    )


def describe(name: str, others: int, told: Told) -> dict[str, str]:
    """Return the row of a teacher in the table."""
    return {
        "teacher": name,
        "other tokens": f"{others:,}",
        "off the list": f"{told.off_list:.1%}",
        "KL restored": f"{told.kl(told.restored):.4f}",
        "KL dropped": f"{told.kl(told.dropped[DROPPED]):.4f}",
        "KL best floor": f"{told.kl(told.dropped[told.best_floor]):.4f} ({told.best_floor:g})",
    }


def compare_students(length: str) -> tuple[list[dict[str, str]], Figure]:
    """Train students on long or short texts; return their table, and how accuracies differ."""
    words, held_out = draw_words(), draw_split(length, HELD_OUT_ROWS, seed=0)
    truth = find_posteriors(held_out.texts, words)
    ways = ("full", "restored", "dropped", "best floor")
    hits: dict[str, list[NDArray[np.bool_]]] = {way: [] for way in ways}
    kls: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(1, SEEDS + 1):
        rows = draw_split(length, TRAIN_ROWS, seed)
        told = tell(find_posteriors(rows.texts, words))
        labels = (told.true, told.restored, told.dropped[DROPPED], told.dropped[told.best_floor])
        for way, logits in zip(ways, labels, strict=True):
            answers = train(rows, held_out, logits, seed)
            hits[way].append(answers.argmax(axis=1) == held_out.gold)
            kls[way].append(rel_entr(np.exp(truth), np.exp(answers)).sum(axis=1).mean())
    restored, dropped = (average([*map(mean, hits[way])]) for way in ("restored", "dropped"))
    found = estimate({"difference": difference(restored, dropped)}, len(held_out), seed=0)
    table = [
        {
            f"told, {length} texts": way,
            "accuracy": f"{np.mean(hits[way]):.4f}",
            "KL to the teacher": f"{np.mean(kls[way]):.4f}",
        }
        for way in ways
    ]
    return table, found["difference"]


def draw_words() -> Logs:
    """Return how likely every word is in texts of every class (classes, words), as logarithms.

    Classes of one group resemble each other.
    """
    generator = np.random.default_rng(0)
    common = 1.5 * generator.standard_normal(WORDS)
    groups = generator.standard_normal((GROUPS, WORDS))[np.arange(CLASSES) % GROUPS]
    own = generator.standard_normal((CLASSES, WORDS))
    return log_softmax(common + 0.6 * groups + 0.6 * own, axis=1)


def draw_split(length: str, rows: int, seed: int) -> Split:
    """Return texts that were drawn from the words of their classes, and these classes."""
    generator, words = np.random.default_rng(seed), np.exp(draw_words())
    gold = generator.integers(CLASSES, size=rows)
    texts = [generator.choice(WORDS, TEXT_WORDS[length], p=words[number]) for number in gold]
    return Split(tuple(" ".join(f"w{word}" for word in text) for text in texts), gold)


def find_posteriors(texts: tuple[str, ...], words: Logs) -> Logs:
    """Return the true log-probabilities (rows, classes) of the class of every text."""
    numbers = np.array([[int(word[1:]) for word in text.split()] for text in texts])
    return log_softmax(words[:, numbers].sum(axis=2).T, axis=1)


def train(rows: Split, held_out: Split, logits: Logs, seed: int) -> Logs:
    """Train a student on a teacher's answers and return its own to held-out rows."""
    training_set = TrainingSet(
        rows=rows,
        soft_labels=SoftLabels(logits.astype(np.float32), CODES, "simulated"),
        validation=held_out,
        classes=CODES,
        objective=Objective(temperature=2.0, alpha=1.0),
        seed=seed,
        teacher=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        BagOfWordsStudent(ngrams=1).train(training_set, Path(folder))
        return log_softmax(open_model(folder).logits(held_out.texts).astype(np.float64), axis=1)


def ends(figure: Figure) -> list[float]:
    """Return a value and both ends of its interval."""
    return [round(value, 4) for value in (figure.value, figure.low, figure.high)]


if __name__ == "__main__":
    main()
