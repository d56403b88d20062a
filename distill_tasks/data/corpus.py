"""The corpus: checked rows in named splits, with the class order and what was found in them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.digests import digest, digest_texts
from distill_tasks.core.notes import Note, Rank
from distill_tasks.problems.classification import NO_LABEL, Decisions, Problem, to_decisions

SYNTHETIC = "synthetic"
"""The split of the rows that a language model wrote."""
SPLITS = ("train", "validation", "held_out", "transfer", SYNTHETIC, "scored", "production")
LEARNT = "train", "transfer", SYNTHETIC
"""Splits that students learn from."""
EVALUATION = "validation", "held_out"
"""Splits whose rows count whether or not the teacher answers them."""


@dataclass(frozen=True)
class Split:
    """Rows of one split: their texts and their gold.

    ``gold`` is class numbers (rows,), or zeros and ones (rows, classes) in a multi-label problem,
    and -1 where it is absent.
    """

    texts: tuple[str, ...]
    gold: NDArray[np.int64]
    slices: tuple[str, ...] | None = None
    """The value of the slice column in each row, if one is configured; of synthetic rows the class
    that each was written for."""

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """The digest of the texts and labels, in order."""
        return digest(digest_texts(self.texts), self.gold.tolist())

    @property
    def has_gold(self) -> bool:
        """Whether every row has a gold label."""
        return bool(len(self) and (self.gold != NO_LABEL).all())

    def decisions(self, classes: int) -> Decisions | None:
        """Return gold as a matrix (rows, classes); None unless every row has gold."""
        return to_decisions(self.gold, classes) if self.has_gold else None

    def rows_per_class(self, classes: int) -> NDArray[np.int64]:
        """Return the number of gold rows of each class (classes,), zeros without gold."""
        member = self.decisions(classes)
        if member is None:
            return np.zeros(classes, np.int64)
        counts: NDArray[np.int64] = member.sum(axis=0)
        return counts

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Split:
        """Return the split of the chosen rows."""
        numbers = np.arange(len(self))[rows]
        slices = None if self.slices is None else tuple(self.slices[row] for row in numbers)
        return Split(tuple(self.texts[row] for row in numbers), self.gold[numbers], slices)


@dataclass(frozen=True)
class Corpus:
    """Named splits, the class order of every array of logits, and what the checks found."""

    splits: dict[str, Split]
    classes: tuple[str, ...]
    findings: tuple[Note, ...] = ()
    problem: Problem = "single_label"

    @cached_property
    def digest(self) -> str:
        """The digest of all rows, the class order and the slices."""
        rows = {name: [split.digest, split.slices] for name, split in self.splits.items()}
        return digest(self.classes, self.problem, rows)

    @property
    def texts(self) -> list[str]:
        """Every distinct text, in the order of the splits."""
        return list(dict.fromkeys(text for split in self.splits.values() for text in split.texts))

    @property
    def evaluation_texts(self) -> list[str]:
        """The texts of validation and held-out."""
        return [
            text for name in EVALUATION if name in self.splits for text in self.splits[name].texts
        ]

    @property
    def training_rows(self) -> Split:
        """The rows that students learn from: train with its gold, then the others without gold."""
        parts = [self.splits[name] for name in LEARNT if name in self.splits]
        texts = tuple(text for part in parts for text in part.texts)
        return Split(texts, np.concatenate([part.gold for part in parts]))

    def without(self, name: str) -> Corpus:
        """Return the corpus without one of its splits."""
        return replace(self, splits={n: rows for n, rows in self.splits.items() if n != name})

    def reorder(self, classes: tuple[str, ...]) -> Corpus:
        """Return the same rows with the classes in another order."""
        places = np.array([classes.index(name) for name in self.classes])
        splits = {
            name: replace(split, gold=_renumber(split.gold, places))
            for name, split in self.splits.items()
        }
        return replace(self, splits=splits, classes=classes)

    def keep_texts(self, texts: Collection[str], names: Collection[str] = SPLITS) -> Corpus:
        """Return the corpus with these texts alone in some splits; empty splits are left out."""
        splits = {
            name: split.take(np.array([text in texts for text in split.texts], np.bool_))
            if name in names
            else split
            for name, split in self.splits.items()
        }
        return replace(self, splits={name: split for name, split in splits.items() if len(split)})

    def save(self, folder: Path) -> None:
        """Write the splits as parquet, and the classes and findings as JSON."""
        import pandas as pd

        for name, split in self.splits.items():
            frame = pd.DataFrame({"text": split.texts, "gold": list(split.gold)})
            if split.slices is not None:
                frame["slice"] = split.slices
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        findings = [asdict(finding) for finding in self.findings]
        about = {"classes": self.classes, "findings": findings, "problem": self.problem}
        (folder / "corpus.json").write_text(json.dumps(about, indent=2))

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Read a corpus that `save` wrote."""
        import pandas as pd

        about = json.loads((folder / "corpus.json").read_text())
        splits = {}
        for name in SPLITS:
            if (folder / f"{name}.parquet").is_file():
                frame = pd.read_parquet(folder / f"{name}.parquet")
                gold = np.stack(frame["gold"].to_list()).astype(np.int64)
                slices = tuple(frame["slice"]) if "slice" in frame else None
                splits[name] = Split(tuple(frame["text"]), gold, slices)
        findings = tuple(Note(Rank(one["rank"]), one["text"]) for one in about["findings"])
        return cls(splits, tuple(about["classes"]), findings, about["problem"])


def _renumber(gold: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return gold whose class ``n`` is now class ``places[n]``."""
    if gold.ndim == 2:
        return gold[:, np.argsort(places)]
    renumbered: NDArray[np.int64] = np.where(gold == NO_LABEL, NO_LABEL, places[gold])
    return renumbered
