"""Transfer rows that train no student: by the teacher's labels of them students are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.corpus import SPLITS, Corpus

SCORED = "scored"


def hold_back(corpus: Corpus, rows: int, seed: int) -> Corpus:
    """Return the corpus with so many of its transfer rows, drawn at random, as the split `scored`.

    Raises InputError if there are too few to leave any.
    """
    if not rows:
        return corpus
    transfer = corpus.splits.get("transfer")
    there = 0 if transfer is None else len(transfer)
    if transfer is None or rows >= there:
        raise InputError(
            f"select.scored_transfer is {rows:,}, but data.transfer has {there:,} different rows, "
            "of which some must be left to train on. Lower it, or leave it out."
        )
    drawn = np.zeros(there, bool)
    drawn[np.random.default_rng(seed).permutation(there)[:rows]] = True
    parts = {"transfer": transfer.take(~drawn), SCORED: transfer.take(drawn)}
    splits = corpus.splits | parts
    found = Note(
        Rank.FINE,
        f"{rows:,} of {there:,} transfer rows train no student: the teacher's labels of them "
        "compare students",
    )
    return replace(
        corpus,
        splits={name: splits[name] for name in SPLITS if name in splits},
        findings=(*corpus.findings, found),
    )
