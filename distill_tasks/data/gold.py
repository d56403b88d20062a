"""Reading gold labels: the cells of a table become class names, and oddities are reported."""

from __future__ import annotations

import ast
import json
import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.settings import RowFormat
from distill_tasks.data.tables import check_column
from distill_tasks.problems.classification import LABEL_SEPARATOR, Problem

if TYPE_CHECKING:
    import pandas as pd

Labels = list[tuple[str, ...]]
"""The labels of each row: exactly one in a single-label problem."""

OTHER_SEPARATORS = (",", ";", "\t", "\n")
"""Other separators of labels, recognised if no cell contains the usual one."""
JOINT = re.compile(r"[,;|/+&]")
"""Characters that either separate two labels or belong to one label's name."""
ITEM = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+]?[\d.]+(?:e[-+]?\d+)?|None|nan|True|False"""
)
LIST = re.compile(rf"[\[({{]\s*(?:(?:{ITEM.pattern})(?:\s*,\s*|\s+|(?=[\])}}])))*[\])}}]")
"""A list, tuple or set as Python prints it, or an array as numpy prints it, without commas."""


def read_gold(
    frames: Mapping[str, pd.DataFrame],
    config: RowFormat,
    problem: Problem,
    known: Collection[str] = (),
) -> tuple[dict[str, Labels], list[Note]]:
    """Return the labels of each split that has gold, and notes about oddities in them.

    ``known`` are names that are certainly classes, such as those of a model. Only held_out may lack
    the column, unless it has one of a similar name. Raises InputError for a missing column or
    label, and for a cell that is no label or can be read in two ways.
    """
    column = config.label_column
    if column is None:
        return {}, []
    findings: list[Note] = []
    columns: dict[str, pd.Series[Any]] = {}
    for split, frame in frames.items():
        if split == "held_out" and not (column in frame or did_you_mean(column, frame.columns)):
            nothing = f"held_out has no column {column!r}: it is scored against the teacher only"
            findings.append(Note(Rank.ACT, f"{nothing}, and no verdict can be given"))
            continue
        check_column(frame, column, split)
        columns[split] = frame[column]
    if problem == "single_label":
        names = {split: _read_single(cells, split) for split, cells in columns.items()}
    else:
        names, odd = _read_several(columns, config, known)
        findings += odd
    names, alike = _unite_alike(names, known, config.merge_labels)
    return names, [*findings, *alike, *_find_joined(names, config, problem)]


def find_conflicts(texts: Mapping[str, Sequence[str]], names: Mapping[str, Labels]) -> list[Note]:
    """Return a note about texts with different labels, with their rows counted from 0."""
    places: dict[str, dict[tuple[str, ...], str]] = {}
    for split, rows in names.items():
        for row, (text, labels) in enumerate(zip(texts[split], rows, strict=True)):
            places.setdefault(text, {}).setdefault(tuple(sorted(labels)), f"{split} row {row}")
    conflicts = [
        " and ".join(
            f"{', '.join(labels) or 'none'} ({place})" for labels, place in labelled.items()
        )
        for labelled in places.values()
        if len(labelled) > 1
    ]
    if not conflicts:
        return []
    some = "1 text has" if len(conflicts) == 1 else f"{len(conflicts)} texts have"
    return [Note(Rank.KNOW, f"{some} different labels: {shortlist(conflicts)}")]


def are_alike(name: str, others: Collection[str]) -> bool:
    """Return whether a name differs from one of the others only in case or white space."""
    return _reduce(name) in map(_reduce, others)


def _read_single(column: pd.Series[Any], split: str) -> Labels:
    lists = [cell for cell in column if _read_list(cell) is not None]
    if len(lists) == len(column) or not all(isinstance(cell, str) for cell in lists):
        raise InputError(
            f"data.{split}: {column.name!r} holds lists of labels, as {_read_list(lists[0])}. "
            "Say `problem: multi_label`."
        )
    names = [_read_name(cell, column.name, split) for cell in column]
    missing = [row for row, name in enumerate(names) if not name]
    if missing:
        raise InputError(
            f"data.{split}: {len(missing)} rows have no {column.name!r} (row {shortlist(missing)})."
            " Label them, or move unlabelled rows to data.transfer."
        )
    return [(name,) for name in names]


def _read_several(
    columns: Mapping[str, pd.Series[Any]], config: RowFormat, known: Collection[str]
) -> tuple[dict[str, Labels], list[Note]]:
    """Return the distinct labels of each row, from lists, lists as text, or joined text."""
    findings: list[Note] = []
    cells = {
        split: [_read_cell(cell, column.name, split) for cell in column]
        for split, column in columns.items()
    }
    texts = dict.fromkeys(cell for rows in cells.values() for cell in rows if isinstance(cell, str))
    separator = config.label_separator or _choose_separator(list(texts), config, known)
    if separator not in (LABEL_SEPARATOR, config.label_separator):
        between = f"labels are read as written with {separator!r} between them"
        findings.append(Note(Rank.KNOW, between))
    names: dict[str, Labels] = {}
    for split, rows in cells.items():
        lists = [_split(cell, separator) if isinstance(cell, str) else cell for cell in rows]
        names[split] = [tuple(dict.fromkeys(name for name in row if name)) for row in lists]
        _refuse_separator(names[split], split)
        empty = sum(row.count("") for row in lists)
        if empty:
            left_out = f"{empty} empty places in lists of labels of {split} were left out"
            findings.append(Note(Rank.FINE, left_out))
        bare = sum(not row for row in names[split])
        if bare:
            findings.append(Note(Rank.KNOW, f"{bare} rows of {split} carry none of the labels"))
    return names, findings


def _read_cell(cell: Any, column: Any, split: str) -> str | list[str]:
    """Return the labels of a cell, or its text, which may hold several."""
    items = _read_list(cell)
    if items is not None:
        return [_read_name(item, column, split) for item in items]
    name = _read_name(cell, column, split)
    return name if isinstance(cell, str) or not name else [name]


def _read_list(cell: Any) -> list[Any] | None:
    """Return the items of a list, or of a list written as text; None for anything else."""
    if isinstance(cell, list | tuple | set | np.ndarray):
        return list(cell)
    if not isinstance(cell, str) or not cell.strip().startswith(("[", "(", "{")):
        return None
    try:
        items = json.loads(cell)
    except ValueError:
        if LIST.fullmatch(cell.strip()) is None:
            return None
        return [_read_item(item) for item in ITEM.findall(cell)]
    return items if isinstance(items, list) else None


def _read_item(item: str) -> Any:
    return float(item) if item[0] in "+-.0123456789n" else ast.literal_eval(item)


def _read_name(cell: Any, column: Any, split: str) -> str:
    """Return a label as text, whole numbers without a decimal point; empty if there is none."""
    import pandas as pd

    if isinstance(cell, str):
        return cell if cell.strip() else ""
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return ""
    if isinstance(cell, float | np.floating) and cell.is_integer():
        return str(int(cell))  # pandas reads whole numbers as floats if a cell is missing
    if isinstance(cell, numbers.Number | np.generic):
        return str(cell)
    raise InputError(
        f"data.{split}: {column!r} holds {str(cell)[:60]}, which is no label ({type(cell).__name__}"
        "). A label is text or a number; give the column of those alone."
    )


def _split(text: str, separator: str) -> list[str]:
    return [name for part in text.split(separator) if (name := part.strip())]


def _choose_separator(texts: Sequence[str], config: RowFormat, known: Collection[str]) -> str:
    """Return the separator of labels: the usual one, or another if its parts also occur alone.

    Raises InputError if a text can be read in two ways.
    """
    if any(LABEL_SEPARATOR in text for text in texts):
        return LABEL_SEPARATOR
    brackets = [text for text in texts if text.strip()[:1] + text.strip()[-1:] == "[]"]
    if brackets:
        raise InputError(
            f"{config.label_column!r} holds {brackets[0]!r}, a list that cannot be read. Write "
            "['a', 'b'], or set label_separator: '|' if brackets belong to a name."
        )
    for mark in OTHER_SEPARATORS:
        joined = [text for text in texts if mark in text]
        if all(text in known for text in joined):
            continue
        alone = {*known, *(text.strip() for text in texts if mark not in text)}
        odd = [text for text in joined if text in known or not alone.issuperset(_split(text, mark))]
        if not odd:
            return mark
        raise InputError(
            f"{config.label_column!r} holds {mark!r} in {len(odd)} labels, as {odd[0]!r}. Set "
            f"label_separator: {mark!r} if it parts labels, '|' if it belongs to their names."
        )
    return LABEL_SEPARATOR


def _refuse_separator(rows: Labels, split: str) -> None:
    wrong = [name for row in rows for name in row if LABEL_SEPARATOR in name]
    if wrong:
        raise InputError(
            f"data.{split}: the label {wrong[0]!r} holds a {LABEL_SEPARATOR!r}, "
            "which stands between labels in answers. Rename it."
        )


def _unite_alike(
    names: dict[str, Labels], known: Collection[str], merge: bool
) -> tuple[dict[str, Labels], list[Note]]:
    """Report names that differ only in case or white space, and merge them if ``merge`` is set.

    Merged names become the known one, else the most frequent without surplus spaces.
    """
    counts = Counter(name for rows in names.values() for row in rows for name in row)
    groups: dict[str, list[str]] = {}
    for name in sorted({*counts, *known}):
        groups.setdefault(_reduce(name), []).append(name)
    spelling: dict[str, str] = {}
    spellings = []
    for group in groups.values():
        best = max(group, key=lambda name: (name in known, _is_tidy(name), counts[name]))
        others = [name for name in group if name != best and counts[name]]
        spelling |= dict.fromkeys(others, best)
        if others:
            rows = sum(counts[name] for name in others)
            spellings.append(f"{', '.join(map(repr, others))} ({rows} rows) as {best!r}")
    if not spellings:
        return names, []
    if not merge:
        advice = "set merge_labels to read them as one"
        alike = f"labels differ in case or spaces alone: {'; '.join(spellings)}"
        return names, [Note(Rank.ACT, f"{alike}; {advice}")]
    merged = {
        split: [tuple(dict.fromkeys(spelling.get(name, name) for name in row)) for row in rows]
        for split, rows in names.items()
    }
    return merged, [Note(Rank.FINE, f"labels were merged: {'; '.join(spellings)}")]


def _is_tidy(name: str) -> bool:
    return name == " ".join(name.split())


def _reduce(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


def _find_joined(names: Mapping[str, Labels], config: RowFormat, problem: Problem) -> list[Note]:
    """Return a note about names that look like several other names joined."""
    if config.label_separator is not None:
        return []
    classes = {name for rows in names.values() for row in rows for name in row}
    parts = {name: [part.strip() for part in JOINT.split(name)] for name in sorted(classes)}
    joined = [name for name, found in parts.items() if len(found) > 1 and classes >= {*found}]
    if not joined:
        return []
    option = "problem: multi_label" if problem == "single_label" else "data.label_separator"
    several = f"labels look like several in one: {shortlist(joined)}"
    return [Note(Rank.ACT, f"{several}; if they are, set {option}")]
