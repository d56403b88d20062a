"""Synthetic rows: texts that a language model wrote for a class, sifted, kept in a file, read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.data.corpus import SYNTHETIC, Corpus, Split
from distill_tasks.data.near_repeats import NearIndex, Place
from distill_tasks.data.tables import check_column, read_table
from distill_tasks.problems.classification import NO_LABEL, Problem

TEXT, INTENDED, MARK = "text", "intended_class", "synthetic"
"""Columns: a text, the class that it was written for, and that it is synthetic."""
ADVICE = "Give the file that `potstill synthesize` wrote."
SCORING = "held_out", "validation", "scored", "production"
"""Splits of which no row may be repeated in training, the most important one first."""


class Sieve:
    """Lets a text through that repeats no row of a corpus and no earlier text, not even nearly."""

    def __init__(self, corpus: Corpus) -> None:
        self._index, self._known = NearIndex(), dict[str, str]()
        for name in dict.fromkeys((*SCORING, *corpus.splits)):
            if name in corpus.splits:
                self._add(name, corpus.splits[name].texts)
        self.removed: Counter[str] = Counter()
        """How many texts were held back, by the split whose row they repeat."""

    def take(self, text: str) -> bool:
        """Return whether a text is new; else count it as a repeat."""
        repeated = self._known.get(text) or self._find_near(text)
        if repeated is not None:
            self.removed[repeated] += 1
        self._known.setdefault(text, repeated or SYNTHETIC)
        return repeated is None

    def _find_near(self, text: str) -> str | None:
        """Return the split with a row that a text nearly repeats, one that scores if there is."""
        [(_, near)] = self._index.add({(SYNTHETIC, len(self._known)): text})
        splits = {split for split, _ in near}
        return next((name for name in (*SCORING, *sorted(splits)) if name in splits), None)

    def _add(self, name: str, texts: tuple[str, ...]) -> None:
        new: dict[Place, str] = {}
        for row, text in enumerate(texts):
            if self._known.setdefault(text, name) == name:
                new[name, row] = text
        self._index.add(new)


def write_synthetic(texts: dict[str, str], path: Path) -> None:
    """Write texts with their intended classes, as csv, jsonl or parquet."""
    import pandas as pd

    frame = pd.DataFrame({TEXT: [*texts], INTENDED: [*texts.values()], MARK: True})
    draft = path.with_name(f".{path.stem}.partial{path.suffix}")
    if path.suffix == ".parquet":
        frame.to_parquet(draft, index=False)
    elif path.suffix == ".csv":
        frame.to_csv(draft, index=False)
    else:
        frame.to_json(draft, orient="records", lines=True, force_ascii=False)
    draft.replace(path)


def read_synthetic(path: str, classes: tuple[str, ...], problem: Problem) -> Split:
    """Return the rows of a file as a split without gold, whose slices are the intended classes.

    Raises InputError for a file that is not there or of another kind, or whose classes are others.
    """
    frame = read_table(path, SYNTHETIC)
    for column in (TEXT, INTENDED, MARK):
        check_column(frame, column, SYNTHETIC, ADVICE)
    about, texts, intended = f"data.synthetic: {path}", list(frame[TEXT]), list(frame[INTENDED])
    marked = frame[MARK].astype(str).str.lower() == "true"
    if frame.empty or not marked.all():
        wrong = "no rows" if frame.empty else f"{(~marked).sum()} rows that are not marked {MARK}"
        raise InputError(f"{about} has {wrong}. {ADVICE}")
    bad = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if bad:
        raise InputError(f"{about} has rows without text ({shortlist(bad)}). {ADVICE}")
    if unknown := [name for name in dict.fromkeys(intended) if name not in classes]:
        near = did_you_mean(str(unknown[0]), classes)
        raise InputError(
            f"{about} has the class {unknown[0]!r}{near}; the data has {shortlist(classes)}. Write "
            "it anew for these."
        )
    shape = (len(texts),) if problem == "single_label" else (len(texts), len(classes))
    return Split(tuple(texts), np.full(shape, NO_LABEL, np.int64), tuple(intended))
