"""Why answers of the teacher may be wrong, found before students learn from them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.problems.classification import (
    DEFAULT_THRESHOLD,
    confidence,
    find_known,
    find_margins,
    probabilities,
    to_decisions,
)
from distill_tasks.scoring.calibration import calibrate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.near_repeats import NearRepeats
    from distill_tasks.data.soft_labels import SoftLabelStore

LOOKED_AT = ("train", "validation", "transfer", "scored")
"""Held-out is left out: whoever corrected a prompt by its rows would have tuned on them."""
SURE = 0.9
"""Calibrated confidence from which an answer counts as sure."""
LOW_MARGIN = 0.1
"""The lead of the likeliest class, as a probability, below which an answer is nearly a tie."""
AGAINST_GOLD, NEAR_REPEAT, TIE = "against gold", "near repeat answered otherwise", "low margin"


class AnsweredRows:
    """The rows that the teacher answered, each text once, how sure it is, and what is doubtful."""

    def __init__(self, corpus: Corpus, labels: SoftLabelStore, near: NearRepeats) -> None:
        self.corpus, self._near = keep_answered(corpus, labels), near
        self.places = [
            (name, row) for name, split in self.corpus.splits.items() for row in range(len(split))
        ]
        self.texts = [text for split in self.corpus.splits.values() for text in split.texts]
        logits, problem = labels.read(self.texts).logits, corpus.problem
        validation = corpus.splits["validation"]
        gold_there = validation.decisions(len(corpus.classes))
        calibration = calibrate(labels.read(validation.texts).logits, gold_there, problem, None)
        self.decisions = calibration.decide(logits, problem)
        self.sure = calibration.confidence(logits, problem)
        values = probabilities(logits, problem, calibration.temperature)
        limits = calibration.thresholds or DEFAULT_THRESHOLD
        self.margin = find_margins(values, problem, limits)
        gold = np.concatenate([split.gold for split in self.corpus.splits.values()])
        self.known, self.gold = find_known(gold), to_decisions(gold, len(corpus.classes))
        apart = self.known & (self.decisions != self.gold).any(axis=1) & (self.sure >= SURE)
        given = confidence(logits, self.gold, problem, calibration.temperature)
        self.against_gold = np.where(apart, self.sure - given, 0)

    @cached_property
    def reasons(self) -> dict[int, dict[str, float]]:
        """How suspicious an answer is, from 0 to 1, by reason, the worst first; by row number.

        It surely contradicts gold (its confidence less what it gives gold); two near repeats get
        different answers (the lower confidence of both); or two classes are nearly as likely (one
        less the margin). The first and the last are two of the scores of Northcutt, Jiang, Chuang
        2021, "Confident Learning", with one threshold in place of one for each class.
        """
        doubts = {
            AGAINST_GOLD: _list_above(self.against_gold, 0),
            NEAR_REPEAT: {row: doubt for row, (doubt, _) in self.near.items()},
            TIE: _list_above(1 - self.margin, 1 - LOW_MARGIN),
        }
        return {
            row: {reason: of_rows[row] for reason, of_rows in doubts.items() if row in of_rows}
            for row in {row for of_rows in doubts.values() for row in of_rows}
        }

    @cached_property
    def doubted(self) -> set[str]:
        """The texts whose answers are suspicious."""
        return {self.texts[row] for row in self.reasons}

    @cached_property
    def near(self) -> dict[int, tuple[float, int]]:
        """By row: the lower confidence of it and of a near repeat answered otherwise, and which.

        Of several near repeats it is the one with the highest of these confidences.
        """
        numbers = {place: number for number, place in enumerate(self.places)}
        pairs = [(numbers[a], numbers[b]) for a, b in self._near.place(self.corpus)]
        found: dict[int, tuple[float, int]] = {}
        for row, other in (turned for pair in pairs for turned in (pair, pair[::-1])):
            if (self.decisions[row] != self.decisions[other]).any():
                doubt = min(self.sure[row], self.sure[other]).item()
                found[row] = max(found.get(row, (0.0, other)), (doubt, other))
        return found


def keep_answered(corpus: Corpus, labels: SoftLabelStore) -> Corpus:
    """Return the splits that are looked at, each text where it is first, and answered."""
    validation = corpus.splits["validation"].texts
    settled = (labels.read(validation).logits == 0).all(axis=1)  # `label` settles them
    unanswered = {text for text, is_settled in zip(validation, settled, strict=True) if is_settled}
    unanswered |= set(labels.missing(corpus.texts))
    splits = {}
    for name in LOOKED_AT:
        if name not in corpus.splits:
            continue
        split, kept = corpus.splits[name], []
        for text in split.texts:
            kept.append(text not in unanswered)
            unanswered.add(text)
        splits[name] = split.take(np.array(kept, np.bool_))
    return replace(corpus, splits=splits)


def _list_above(doubts: NDArray[np.float64], least: float) -> dict[int, float]:
    """Return the doubts (rows,) above a least one, by row number."""
    return {row: doubt for row, doubt in enumerate(doubts.tolist()) if doubt > least}
