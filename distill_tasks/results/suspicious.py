"""Answers of the teacher that should be looked at before students learn from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.data.corrections import row_keys
from distill_tasks.data.near_repeats import find_near_repeats
from distill_tasks.problems.classification import (
    DEFAULT_THRESHOLD,
    confidence,
    find_known,
    find_margins,
    name_labels,
    probabilities,
    to_decisions,
)
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.label_errors import SURE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distill_tasks.data.corpus import Corpus
    from distill_tasks.problems.classification import Decisions
    from distill_tasks.results.run import OpenRun

LOOKED_AT = ("train", "validation", "transfer", "scored")
"""Held-out is left out: whoever corrected a prompt by its rows would have tuned on them."""
LOW_MARGIN = 0.1
"""The lead of the likeliest class, as a probability, below which an answer is nearly a tie."""
MOST_ROWS = 500
AGAINST_GOLD, NEAR_REPEAT, TIE = "against gold", "near repeat answered otherwise", "low margin"


@dataclass(frozen=True)
class SuspiciousAnswer:
    """An answer of the teacher, and why it may be wrong."""

    key: str
    split: str
    text: str
    gold: str
    """Empty where there is none."""
    teacher: str
    confidence: float
    margin: float
    """The lead of its answer over the next one, as a probability."""
    reasons: dict[str, float]
    """How suspicious it is, from 0 to 1, by reason, the worst reason first."""
    near_text: str = ""
    """Nearly the same text, which it answers otherwise."""
    near_teacher: str = ""


def find_suspicious(run: OpenRun) -> list[SuspiciousAnswer]:
    """Return the teacher's suspicious answers, the most suspicious first, at most 500.

    It surely contradicts gold (its confidence less what it gives gold); two near repeats get
    different answers (the lower confidence of both); or two classes are nearly as likely (one less
    the margin). Rows with more reasons come first, then by reason in this order, then by how much.
    """
    rows = _Answered(run)
    doubts = {
        AGAINST_GOLD: _list_above(rows.against_gold, 0),
        NEAR_REPEAT: {row: doubt for row, (doubt, _) in rows.near.items()},
        TIE: _list_above(1 - rows.margin, 1 - LOW_MARGIN),
    }
    reasons = {
        row: {reason: of_rows[row] for reason, of_rows in doubts.items() if row in of_rows}
        for row in {row for of_rows in doubts.values() for row in of_rows}
    }
    order = sorted(reasons, key=lambda row: (*_rank(reasons[row]), row))[:MOST_ROWS]
    return [rows.describe(row, reasons[row]) for row in order]


def _list_above(doubts: NDArray[np.float64], least: float) -> dict[int, float]:
    """Return the doubts (rows,) above a least one, by row number."""
    return {row: doubt for row, doubt in enumerate(doubts.tolist()) if doubt > least}


def _rank(reasons: dict[str, float]) -> tuple[int, int, float]:
    worst = next(iter(reasons))
    return -len(reasons), (AGAINST_GOLD, NEAR_REPEAT, TIE).index(worst), -reasons[worst]


class _Answered:
    """The rows that the teacher answered, each text once, and how sure it is of them."""

    def __init__(self, run: OpenRun) -> None:
        self.corpus = corpus = _keep_answered(run)
        self.places = [
            (name, row) for name, split in corpus.splits.items() for row in range(len(split))
        ]
        self.texts = [text for split in corpus.splits.values() for text in split.texts]
        logits = run.labels.read(self.texts).logits
        calibration = Evaluator(run, "validation").eval_split.teacher.calibration
        self.decisions = calibration.decide(logits, corpus.problem)
        self.sure = calibration.confidence(logits, corpus.problem)
        values = probabilities(logits, corpus.problem, calibration.temperature)
        limits = calibration.thresholds or DEFAULT_THRESHOLD
        self.margin = find_margins(values, corpus.problem, limits)
        gold = np.concatenate([split.gold for split in corpus.splits.values()])
        self.known, self.gold = find_known(gold), to_decisions(gold, len(corpus.classes))
        apart = self.known & (self.decisions != self.gold).any(axis=1) & (self.sure >= SURE)
        given = confidence(logits, self.gold, corpus.problem, calibration.temperature)
        self.against_gold = np.where(apart, self.sure - given, 0)

    @cached_property
    def near(self) -> dict[int, tuple[float, int]]:
        """By row: the lower confidence of it and of a near repeat answered otherwise, and which.

        Of several near repeats it is the one with the highest of these confidences.
        """
        numbers = {place: number for number, place in enumerate(self.places)}
        pairs = [(numbers[one], numbers[other]) for one, other in find_near_repeats(self.corpus)]
        found: dict[int, tuple[float, int]] = {}
        for row, other in (turned for pair in pairs for turned in (pair, pair[::-1])):
            if (self.decisions[row] != self.decisions[other]).any():
                doubt = min(self.sure[row], self.sure[other]).item()
                found[row] = max(found.get(row, (0.0, other)), (doubt, other))
        return found

    def describe(self, row: int, reasons: dict[str, float]) -> SuspiciousAnswer:
        """Return one answer with its reasons."""
        _, other = self.near.get(row, (0.0, None))
        return SuspiciousAnswer(
            key=row_keys([self.texts[row]])[0],
            split=self.places[row][0],
            text=self.texts[row],
            gold=self._name(self.gold, row) if self.known[row] else "",
            teacher=self._name(self.decisions, row),
            confidence=float(self.sure[row]),
            margin=float(self.margin[row]),
            reasons=reasons,
            near_text="" if other is None else self.texts[other],
            near_teacher="" if other is None else self._name(self.decisions, other),
        )

    def _name(self, decisions: Decisions, row: int) -> str:
        return name_labels(decisions[row : row + 1], self.corpus.classes)[0]


def _keep_answered(run: OpenRun) -> Corpus:
    """Return the splits that are looked at, each text where it is first, and answered."""
    validation = run.corpus.splits["validation"].texts
    settled = (run.labels.read(validation).logits == 0).all(axis=1)  # `label` settles them
    unanswered = {text for text, is_settled in zip(validation, settled, strict=True) if is_settled}
    unanswered |= set(run.labels.missing(run.corpus.texts))
    splits = {}
    for name in LOOKED_AT:
        if name not in run.corpus.splits:
            continue
        split, kept = run.corpus.splits[name], []
        for text in split.texts:
            kept.append(text not in unanswered)
            unanswered.add(text)
        splits[name] = split.take(np.array(kept, np.bool_))
    return replace(run.corpus, splits=splits)
