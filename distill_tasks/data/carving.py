"""Carving validation from train: once for every run, and again for students compared on more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.settings import DataConfig
from distill_tasks.problems.classification import to_decisions

T = TypeVar("T")


@dataclass(frozen=True)
class Carving:
    """Another way to part the gold rows of a corpus into validation and train."""

    corpus: Corpus
    rows: NDArray[np.int64]
    """Its validation rows by their numbers among those of the first validation, then train."""


def carve_validation(
    splits: dict[str, Split], classes: Sequence[str], config: DataConfig, seed: int
) -> tuple[dict[str, Split], list[Note]]:
    """Carve validation from train, the same share of each class, unless the user gave one.

    Raises InputError if no class has two texts.
    """
    if "validation" in splits:
        return splits, []
    train = splits["train"]
    mask, small = _draw_validation(train, classes, config.share_of_validation(len(train)), seed)
    if not mask.any():
        raise InputError(
            f"data.train has {len(set(train.texts))} texts, too few to carve a validation split "
            "from. Give data.validation, or at least two texts of one class."
        )
    how_many = f"{mask.sum()} of {len(train)} rows"
    findings = [Note(Rank.FINE, f"validation carved from train: {how_many}")]
    if small:
        whole = f"too small to split, kept whole in train: {shortlist(small)}"
        findings.append(Note(Rank.KNOW, whole))
    carved = {**splits, "train": train.take(~mask), "validation": train.take(mask)}
    return carved, findings


def carve_again(corpus: Corpus, times: int, seed: int) -> list[Carving]:
    """Part the rows of validation and train so many times more, each time at random.

    Source: repeated random sub-sampling, Dubitzky, Granzow and Berrar 2007, "Fundamentals of Data
    Mining in Genomics and Proteomics", chapter 8.
    """
    first, train = corpus.splits["validation"], corpus.splits["train"]
    pool = Split(first.texts + train.texts, np.concatenate([first.gold, train.gold]))
    share = len(first) / len(pool)
    carvings = []
    for number in range(1, times + 1):
        mask, _ = _draw_validation(pool, corpus.classes, share, seed + number)
        parts = {"train": pool.take(~mask), "validation": pool.take(mask)}
        carved = replace(corpus, splits=corpus.splits | parts)
        carvings.append(Carving(carved, np.flatnonzero(mask)))
    return carvings


def _draw_validation(
    train: Split, classes: Sequence[str], share: float, seed: int
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which rows (rows,) become validation, and the classes that are too small to part.

    Rows of equal text stay together, so that no validation text is also trained on.
    """
    groups = stratify(train, classes)
    chosen = set(draw_of_each([texts for _, texts in groups], share, seed))
    small = [f"{name} ({len(texts)} text)" for name, texts in groups if len(texts) < 2]
    return np.array([text in chosen for text in train.texts], np.bool_), small


def draw_of_each(groups: Iterable[Sequence[T]], share: float, seed: int) -> list[T]:
    """Return a random share of each group: one at least but never all, so none of a single one."""
    generator, drawn = np.random.default_rng(seed), list[T]()
    for group in groups:
        most = min(max(1, round(share * len(group))), len(group) - 1)
        drawn += [group[number] for number in generator.permutation(len(group))[:most]]
    return drawn


def stratify(train: Split, classes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return disjoint groups of different texts, each with the name of its class.

    A text with several labels belongs to the rarest of them. Source: Sechidis, Tsoumakas, Vlahavas
    2011, "On the Stratification of Multi-Label Data", without its quota for each split.
    """
    texts = list(dict.fromkeys(train.texts))
    if not train.has_gold:
        return [("rows without gold", texts)]
    numbers = {text: number for number, text in enumerate(texts)}
    text_of_row = np.array([numbers[text] for text in train.texts])
    member = np.zeros((len(texts), len(classes)), bool)
    np.logical_or.at(member, text_of_row, to_decisions(train.gold, len(classes)))
    free = np.ones(len(texts), bool)
    groups = []
    several = train.gold.ndim == 2 or (member.sum(axis=1) > 1).any()
    rarest_first = np.argsort(member.sum(axis=0), kind="stable")
    for number in rarest_first if several else range(len(classes)):
        found = np.flatnonzero(member[:, number] & free)
        free[found] = False
        if found.size:
            groups.append((classes[int(number)], found))
    if free.any():
        groups.append(("rows with no label", np.flatnonzero(free)))
    return [(name, [texts[place] for place in found]) for name, found in groups]
