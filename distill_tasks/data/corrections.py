"""Corrected gold labels: a table of rows by their key, as a run wrote it and a person filled it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_tasks.core.digests import digest_texts
from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.core.markup import from_cell
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.gold import Labels
from distill_tasks.data.settings import DataConfig
from distill_tasks.data.tables import check_column, read_table
from distill_tasks.problems.classification import LABEL_SEPARATOR, Problem

if TYPE_CHECKING:
    import pandas as pd

KEY, TEXT, CORRECTED = "key", "text", "corrected"
"""The columns that a table of corrections needs; others are for whoever fills it."""
SPLIT = "corrections"
ADVICE = "It is the review/label_errors.csv of a run, with right labels in that column."


def row_keys(texts: Sequence[str]) -> list[str]:
    """Return the key of each text, which no spreadsheet takes for a number."""
    return [f"row-{key}" for key in digest_texts(texts)]


@dataclass(frozen=True)
class Correction:
    """The right labels of a text."""

    labels: tuple[str, ...]
    text: str
    """The text that the person saw, by which a row that slipped is found."""


def correct(
    names: Mapping[str, Labels],
    texts: Mapping[str, Sequence[str]],
    config: DataConfig,
    problem: Problem,
) -> tuple[dict[str, Labels], list[Note]]:
    """Return the labels of each split with corrections in their place, and notes about them.

    A correction whose text is gone or was changed is left out and told. Raises InputError for a
    table that is none, a label that no row has, and two corrections of one row.
    """
    if config.corrections is None:
        return dict(names), []
    if not names:
        raise InputError("data.corrections corrects gold, but data.label_column is null.")
    known = {name for rows in names.values() for row in rows for name in row}
    given = _read(config, problem, known)
    corrected, counts, met = dict(names), Counter[str](), set[str]()
    for split, rows in names.items():
        keys = row_keys(texts[split])
        fitting = [
            given[key] if key in given and _same(given[key].text, text) else None
            for key, text in zip(keys, texts[split], strict=True)
        ]
        met |= {key for key, found in zip(keys, fitting, strict=True) if found is not None}
        corrected[split] = [
            row if found is None else found.labels for row, found in zip(rows, fitting, strict=True)
        ]
        pairs = zip(rows, corrected[split], strict=True)
        counts[split] = sum(set(old) != set(new) for old, new in pairs)
    return corrected, _describe(
        config.corrections, counts, [key for key in given if key not in met]
    )


def _read(config: DataConfig, problem: Problem, known: set[str]) -> dict[str, Correction]:
    """Return the corrections that were filled in, by the key of their row."""
    frame = read_table(str(config.corrections), SPLIT)
    for column in (KEY, TEXT, CORRECTED):
        check_column(frame, column, SPLIT, ADVICE)
    filled = frame[frame[CORRECTED].notna() & frame[KEY].notna()]
    corrections: dict[str, Correction] = {}
    for key, text, cell in zip(*_columns(filled), strict=True):
        labels = _read_labels(cell, config, problem, known)
        if not labels:
            continue
        if corrections.setdefault(key, Correction(labels, text)).labels != labels:
            raise InputError(f"data.corrections has two labels for {key}. Keep one row of it.")
    return corrections


def _columns(frame: pd.DataFrame) -> list[list[str]]:
    return [frame[name].astype(str).tolist() for name in (KEY, TEXT, CORRECTED)]


def _read_labels(
    cell: str, config: DataConfig, problem: Problem, known: set[str]
) -> tuple[str, ...]:
    """Return the labels of a cell as the data spells them."""
    separator = config.label_separator or LABEL_SEPARATOR
    cell = cell if cell in known else from_cell(cell)  # as it was copied from beside
    parts = cell.split(separator) if problem == "multi_label" else [cell]
    labels = [part if part in known else part.strip() for part in parts if part.strip()]
    unknown = [name for name in labels if name not in known]
    if unknown:
        raise InputError(
            f"data.corrections has the label {unknown[0]!r}{did_you_mean(unknown[0], known)}, "
            f"which no row of the data has: {shortlist(sorted(known))}. Correct it there."
        )
    return tuple(dict.fromkeys(labels))


def _same(seen: str, text: str) -> bool:
    """Return whether a person saw this text, whatever a spreadsheet did to its line breaks."""
    return from_cell(seen).split() == text.split()


def _describe(path: str, counts: Counter[str], lost: Sequence[str]) -> list[Note]:
    notes = []
    total = sum(counts.values())
    listed = ", ".join(f"{rows} of {split}" for split, rows in counts.items() if rows)
    by_split = f" ({listed})" if listed else ""
    notes.append(Note(Rank.KNOW, f"gold labels corrected by {path}: {total}{by_split}"))
    if lost:
        left_out = f"corrections of {path} that were left out: {len(lost)} ({shortlist(lost)})"
        reason = "no labelled row has that text, which was changed or is gone"
        notes.append(Note(Rank.ACT, f"{left_out}; {reason}"))
    return notes
