"""A look at a table that nobody has described yet: which columns are texts, labels and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.problems.classification import LABEL_SEPARATOR, Problem

if TYPE_CHECKING:
    import pandas as pd

TEXT_NAMES = (
    *("text", "body", "message", "content", "comment", "review", "sentence", "utterance"),
    *("description", "document", "question", "query", "abstract"),
)
TITLE_NAMES = ("subject", "title", "headline", "summary")
LABEL_NAMES = (
    *("label", "labels", "class", "classes", "category", "categories", "target", "intent"),
    *("topic", "topics", "tag", "tags", "sentiment", "y"),
)
"""Usual names of columns, the likeliest first."""
SEPARATORS = (LABEL_SEPARATOR, ";", ",")
"""What people write between several labels in one cell."""
MOST_CLASSES = 500
"""A column with more different values is taken for labels only where its name says so."""
FIRST_CJK = "\u2e80"
"""The first character of the scripts of Chinese and Japanese, which write no spaces."""
RECURRENCE = 1.5
"""Cells, all different, in which a part of a cell occurs on average if it is a label itself."""
JOINED_SHARE = 0.01
"""Share of cells with a separator from which they may hold several labels."""


@dataclass(frozen=True)
class Column:
    """What the cells of one column look like; empty cells are left out."""

    name: str
    filled: int
    values: Counter[str] = field(repr=False)
    """How often each value occurs."""
    text: bool
    """Whether every cell is text."""
    lists: bool
    """Whether every cell is a list."""
    words: float
    """Mean number of words of a cell."""

    @property
    def looks_like_id(self) -> bool:
        """Whether it numbers or names the rows: one word each, no two alike."""
        distinct = self.filled > 1 and len(self.values) == self.filled
        return distinct and self.words == 1 and not self.lists

    @property
    def looks_like_text(self) -> bool:
        """Whether its cells are prose that differs from row to row."""
        return self.text and self.words > 1.5 and len(self.values) > self.filled / 4

    @property
    def looks_like_labels(self) -> bool:
        """Whether few values are shared by many rows."""
        return 1 < len(self.values) <= min(MOST_CLASSES, self.filled / 2)


@dataclass(frozen=True)
class Survey:
    """What a table holds, as far as its cells and the names of its columns tell."""

    rows: int
    text_columns: tuple[str, ...]
    """The fields that make up the text, the title first if there is one."""
    label_column: str | None
    """None where no column looks like labels."""
    problem: Problem
    label_separator: str | None
    """What stands between several labels of one cell; None where there is one, or a list."""
    classes: dict[str, int]
    """Rows of each class, the most frequent first."""
    empty_texts: int
    unlabelled: int
    """Rows that have a text but no label."""
    repeats: int
    """Rows whose text occurred before."""
    id_columns: tuple[str, ...]
    other_labels: tuple[str, ...]
    """Columns that might be labels as well."""
    long_text: int
    """Words of a long text: 95 of 100 have fewer."""

    @property
    def labelled(self) -> int:
        """Rows with text and label."""
        return self.rows - self.empty_texts - self.unlabelled


def survey_table(
    frame: pd.DataFrame,
    path: str,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
) -> Survey:
    """Return what a table holds; columns that are given are not guessed.

    Raises InputError for a table without rows, without texts, or without a given column.
    """
    if frame.empty:
        raise InputError(f"{path} has no rows. Give a table with texts and, if you can, labels.")
    for name in (*text_columns, *([label_column] if label_column else [])):
        if name not in frame.columns:
            near = did_you_mean(name, frame.columns)
            raise InputError(
                f"{path} has no column {name!r}{near}; it has {shortlist(frame.columns)}."
            )
    columns = [_describe(frame[name]) for name in frame.columns if name != label_column]
    texts = tuple(text_columns) or _find_texts(columns, path)
    possible = _find_labels([column for column in columns if column.name not in texts])
    label = label_column or (possible[0].name if possible else None)
    empty = find_empty_texts(frame, texts)
    cells = [] if label is None else [cell for cell in frame[label] if not _is_missing(cell)]
    problem, separator = _find_separator(cells)
    joined = frame.loc[~empty, list(texts)].astype(str).agg("\n".join, axis=1)
    lengths = [_count_words(text) for text in joined] or [0]
    return Survey(
        rows=len(frame),
        text_columns=texts,
        label_column=label,
        problem=problem,
        label_separator=separator,
        classes=dict(Counter(n for c in cells for n in split_labels(c, separator)).most_common()),
        empty_texts=int(empty.sum()),
        unlabelled=int((~empty & find_unlabelled(frame, label)).sum()),
        repeats=int(joined.duplicated().sum()),
        id_columns=tuple(c.name for c in columns if c.name not in texts and c.looks_like_id),
        other_labels=tuple(c.name for c in possible if c.name != label),
        long_text=int(np.quantile(lengths, 0.95)),
    )


def find_empty_texts(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series[bool]:
    """Return in which rows all text columns are empty."""
    return frame[list(columns)].map(_is_missing).all(axis=1)


def find_unlabelled(frame: pd.DataFrame, column: str | None) -> pd.Series[bool]:
    """Return which rows have no label; all of them where there is no label column."""
    import pandas as pd

    if column is None:
        return pd.Series(data=True, index=frame.index)
    return frame[column].map(_is_missing).astype(bool)


def split_labels(cell: Any, separator: str | None) -> list[str]:
    """Return the labels of a cell as text."""
    if isinstance(cell, list | tuple | np.ndarray):
        return [_say(item) for item in cell]
    text = _say(cell)
    if separator is None:
        return [text]
    return [part.strip() for part in text.split(separator) if part.strip()]


def _describe(column: pd.Series[Any]) -> Column:
    cells = [cell for cell in column if not _is_missing(cell)]
    return Column(
        name=str(column.name),
        filled=len(cells),
        values=Counter(map(_say, cells)),
        text=all(isinstance(cell, str) for cell in cells),
        lists=bool(cells) and all(isinstance(cell, list | tuple | np.ndarray) for cell in cells),
        words=float(np.mean([_count_words(_say(cell)) for cell in cells])) if cells else 0.0,
    )


def _find_texts(columns: Sequence[Column], path: str) -> tuple[str, ...]:
    """Return the column of the longest texts, or the one with a usual name, behind its title."""
    texts = [column for column in columns if column.looks_like_text]
    if not texts:
        raise InputError(
            f"{path} has no column that looks like texts; it has "
            f"{shortlist(column.name for column in columns)}. "
            "Name it: --text-column NAME."
        )
    bodies = [column for column in texts if column.name.lower() not in TITLE_NAMES] or texts
    best = min(bodies, key=lambda column: (_place(column.name, TEXT_NAMES), -column.words))
    titles = [c for c in texts if c.name.lower() in TITLE_NAMES and c is not best]
    return (*(title.name for title in titles[:1]), best.name)


def _find_labels(columns: Sequence[Column]) -> list[Column]:
    """Return the columns that may be labels: those with a usual name, then the fewest values."""
    possible = [
        column
        for column in columns
        if (column.name.lower() in LABEL_NAMES and len(column.values) > 1)
        or (column.looks_like_labels and not column.looks_like_text)
    ]
    return sorted(possible, key=lambda c: (_place(c.name, LABEL_NAMES), len(c.values)))


def _place(name: str, names: Sequence[str]) -> int:
    lower = name.lower()
    return names.index(lower) if lower in names else len(names)


def _find_separator(cells: Sequence[Any]) -> tuple[Problem, str | None]:
    """Return whether cells hold several labels, and what stands between them.

    A comma may stand in a name: as a separator, its parts recur in other cells or occur alone.
    """
    if cells and all(isinstance(cell, list | tuple | np.ndarray) for cell in cells):
        return "multi_label", None
    values = Counter(cell for cell in cells if isinstance(cell, str))
    for mark in SEPARATORS:
        joined = [value for value in values if mark in value]
        if sum(values[value] for value in joined) < max(2, JOINED_SHARE * len(cells)):
            continue
        parts = Counter(part for value in joined for part in split_labels(value, mark))
        alone = {value.strip() for value in values if mark not in value}
        recur = parts.total() >= RECURRENCE * len(parts)
        if mark != "," or recur or alone.issuperset(parts):
            return "multi_label", mark
    return "single_label", None


def _say(cell: Any) -> str:
    """Return a cell as text, whole numbers without a decimal point."""
    if isinstance(cell, float | np.floating) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _count_words(text: str) -> int:
    """Return the number of words; two characters count as one where no spaces are written."""
    return max(len(text.split()), sum(character >= FIRST_CJK for character in text) // 2)


def _is_missing(cell: Any) -> bool:
    import pandas as pd

    if isinstance(cell, str):
        return not cell.strip()
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))
