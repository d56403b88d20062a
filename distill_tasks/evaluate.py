"""Stage ``evaluate``: score what would be served, on validation and on held-out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distill_tasks.config import DistillConfig
from distill_tasks.controls import WORDS_ON_GOLD, fit_words_on_gold
from distill_tasks.corpus import Corpus
from distill_tasks.digests import digest
from distill_tasks.label import LabelsReference
from distill_tasks.prepare import CorpusReference
from distill_tasks.progress import Progress
from distill_tasks.scorecard import Scorecard, score
from distill_tasks.served_model import open_model
from distill_tasks.soft_labels import SoftLabelStore
from distill_tasks.stage import stage
from distill_tasks.store import Store
from distill_tasks.train import StudentReference

logger = logging.getLogger("potstill")

CODE_VERSION = 1
"""Raised when a change of the code changes the figures that come out."""

TEACHER = "teacher"
SCORED_SPLITS = ("validation", "held_out")
BATCH_ROWS = 32

Logits = dict[str, NDArray[np.float32]]
"""Logits (rows, classes) by split."""


@dataclass(frozen=True)
class Scores:
    """The scorecards of every model by name and split: teacher, control, students."""

    cards: dict[str, dict[str, Scorecard]]
    reused: bool


class Answering(Protocol):
    """Whatever gives logits for texts."""

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (rows, classes)."""
        ...


def answer_sorted(model: Answering, texts: Sequence[str], name: str) -> NDArray[np.float32]:
    """Return logits (rows, classes) asked in batches of similar length, in the texts' order."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    progress, parts = Progress(f"scoring {name}", "rows"), []
    progress.start(len(texts))
    for start in range(0, len(order), BATCH_ROWS):
        parts.append(model.logits([texts[row] for row in order[start : start + BATCH_ROWS]]))
        progress.reach(start + BATCH_ROWS)
    progress.stop()
    logits = np.concatenate(parts)
    return logits[np.argsort(order)]


def score_all(
    config: DistillConfig, corpus: Corpus, labels: SoftLabelStore, students: list[StudentReference]
) -> Scores:
    """Score teacher, control and students; whatever was scored before is read from the store."""
    scorer = _Scorer(Store(config.work_dir), corpus, labels)
    cards = {TEACHER: scorer.teacher()}
    if corpus.splits["train"].has_gold:
        cards[WORDS_ON_GOLD] = scorer.control()
    for student in students:
        cards[student.name] = scorer.student(student)
    return Scores(cards, reused=scorer.made == 0)


@stage("evaluate {config.name}")
def evaluate(
    config: DistillConfig,
    corpus: CorpusReference,
    labels: LabelsReference,
    students: list[StudentReference],
) -> Scores:
    """Score every model."""
    return score_all(config, corpus.open(), labels.open(), students)


class _Scorer:
    """Scores models against one corpus and one teacher, each at most once."""

    def __init__(self, store: Store, corpus: Corpus, labels: SoftLabelStore) -> None:
        self.store, self.corpus, self.labels = store, corpus, labels
        self.splits = {name: corpus.splits[name] for name in SCORED_SPLITS}
        self.rows = [split.digest for split in self.splits.values()]
        self.made = 0

    def teacher(self) -> dict[str, Scorecard]:
        """Return the teacher's own scorecards, from its soft labels."""
        logits = {n: self.labels.read(s.texts).logits for n, s in self.splits.items()}
        return self._kept(TEACHER, "teacher", lambda: logits)

    def control(self) -> dict[str, Scorecard]:
        """Return the scorecards of words on gold."""

        def answer() -> Logits:
            train = self.corpus.splits["train"]
            model = fit_words_on_gold(train, len(self.corpus.classes))
            return {name: model.logits(split.texts) for name, split in self.splits.items()}

        return self._kept(WORDS_ON_GOLD, self.corpus.splits["train"].digest, answer)

    def student(self, student: StudentReference) -> dict[str, Scorecard]:
        """Return the scorecards of a student, asked as it would be served."""

        def answer() -> Logits:
            logger.info("evaluate %s", student.name)
            model = open_model(student.folder)
            return {
                name: answer_sorted(model, split.texts, student.name)
                for name, split in self.splits.items()
            }

        return self._kept(student.name, student.digest, answer)

    def _kept(self, name: str, model: str, answer: Callable[[], Logits]) -> dict[str, Scorecard]:
        key = digest(CODE_VERSION, name, model, self.labels.teacher, self.rows)
        saved = self.store.manifest("scorecards", key)
        if saved is not None:
            return {split: Scorecard.from_json(card) for split, card in saved.items()}
        self.made += 1
        logits = answer()
        cards = {
            split_name: score(
                name,
                split,
                split_name,
                logits[split_name],
                self.labels.read(split.texts).logits,
                self.corpus.classes,
            )
            for split_name, split in self.splits.items()
        }
        manifest = {split_name: card.to_json() for split_name, card in cards.items()}
        with self.store.build("scorecards", key, manifest) as draft:
            np.savez(draft / "logits.npz", allow_pickle=False, **logits)
        return cards
