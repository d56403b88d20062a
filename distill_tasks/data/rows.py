"""Reading the user's rows into a corpus: checked, split, without repeats across splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.carving import carve_validation
from distill_tasks.data.corpus import SPLITS, SYNTHETIC, Corpus, Split
from distill_tasks.data.corrections import correct
from distill_tasks.data.gold import Labels, are_alike, find_conflicts, read_gold
from distill_tasks.data.settings import DataConfig, RowFormat
from distill_tasks.data.synthetic import read_synthetic
from distill_tasks.data.tables import check_column, read_table
from distill_tasks.data.texts import read_tables, read_texts
from distill_tasks.problems.classification import LABEL_SEPARATOR, NO_LABEL, Problem

if TYPE_CHECKING:
    import pandas as pd

GOLD_SPLITS = ("train", "validation", "held_out")
STRONGER_SPLITS = {
    "validation": ("held_out",),
    "train": ("held_out", "validation"),
    "transfer": ("held_out", "validation", "train"),
    SYNTHETIC: ("held_out", "validation", "train", "transfer"),
}
"""For each split, the splits whose rows it may not repeat."""


def read_corpus(
    config: DataConfig,
    seed: int,
    classes: Sequence[str] | None = None,
    problem: Problem = "single_label",
) -> Corpus:
    """Read, check and split the user's rows.

    ``classes`` are the teacher's, used if the data has no labels. Raises InputError for anything
    that would make a later stage fail or give wrong results.
    """
    frames = {
        name: read_tables(table, config.text_columns, name)
        for name in SPLITS
        if name != SYNTHETIC and (table := getattr(config, name, None)) is not None
    }
    texts = {name: read_texts(frame, config, name) for name, frame in frames.items()}
    judged = {name: frames[name] for name in GOLD_SPLITS if name in frames}
    names, findings = read_gold(judged, config, problem, classes or ())
    names, corrected = correct(names, texts, config, problem)
    findings += [*corrected, *find_conflicts(texts, names)]
    order = _order_classes(names, classes, problem)
    splits = {
        name: Split(
            tuple(rows),
            _number(names.get(name), order, len(rows), problem),
            _read_slices(frames[name], config.slice_column) if name == "held_out" else None,
        )
        for name, rows in texts.items()
    }
    if config.synthetic is not None:
        splits[SYNTHETIC] = read_synthetic(config.synthetic, order, problem)
    splits, repeats = _remove_repeats(splits, order)
    splits, carved = carve_validation(splits, order, config, seed)
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return Corpus(ordered, order, (*findings, *repeats, *carved), problem)


def read_rows(
    path: Path, config: RowFormat, problem: Problem, known: Sequence[str]
) -> tuple[Split, tuple[str, ...], list[Note]]:
    """Read rows to compare models on; gold is absent where there is no label column.

    ``known`` are the classes of a model. Returns the rows, the classes found in them, and sentences
    about oddities. Raises InputError like `read_corpus`.
    """
    frame = read_table(str(path), "rows")
    texts = read_texts(frame, config, "rows")
    column = str(config.label_column)
    if column not in frame.columns and not did_you_mean(column, frame.columns):
        return Split(tuple(texts), np.full(len(texts), NO_LABEL, np.int64)), (), []
    names, findings = read_gold({"rows": frame}, config, problem, known)
    findings += find_conflicts({"rows": texts}, names)
    classes = tuple(sorted({label for row in names["rows"] for label in row}))
    rows = Split(tuple(texts), _number(names["rows"], classes, len(texts), problem))
    return rows, classes, findings


def _read_slices(frame: pd.DataFrame, column: str | None) -> tuple[str, ...] | None:
    if column is None:
        return None
    check_column(frame, column, "held_out", "Set data.slice_column, or leave it out.")
    cells = zip(frame[column], frame[column].isna(), strict=True)
    return tuple("(empty)" if missing else str(value) for value, missing in cells)


def _order_classes(
    names: dict[str, Labels], teacher_classes: Sequence[str] | None, problem: Problem
) -> tuple[str, ...]:
    """Return the classes of train: in the teacher's order if it has the same, else sorted."""
    if "train" not in names:
        if teacher_classes is None:
            raise InputError(
                "data.label_column is null and the teacher has no classes of its own. "
                "Label the train rows, or use a teacher of kind transformers or saved."
            )
        _refuse_names(teacher_classes, problem)
        if len(teacher_classes) < 2 and problem == "single_label":
            raise InputError(
                f"The teacher has fewer than two classes ({shortlist(teacher_classes) or 'none'}). "
                "A classifier needs at least two; check its answers."
            )
        return tuple(teacher_classes)
    known = {split: {label for row in rows for label in row} for split, rows in names.items()}
    classes = tuple(sorted(known["train"]))
    if not classes:
        raise InputError("data.train has no labels at all. Check data.label_column.")
    if len(classes) < 2 and problem == "single_label":
        raise InputError(
            f"data.train has one class only ({classes[0]!r}). A classifier needs at least two; "
            "check data.label_column."
        )
    for split, labels in known.items():
        unseen = sorted(labels - known["train"])
        if unseen:
            near = did_you_mean(unseen[0], classes)
            alike = any(are_alike(name, classes) for name in unseen)
            merge = " Those that differ in case or spaces alone are one with data.merge_labels."
            raise InputError(
                f"data.{split} has labels that train never saw: {shortlist(unseen)}{near}. "
                f"Add rows of these classes to train, or remove them.{merge if alike else ''}"
            )
    if teacher_classes is not None and set(teacher_classes) == set(classes):
        return tuple(teacher_classes)
    return classes


def _refuse_names(classes: Sequence[str], problem: Problem) -> None:
    """Raise InputError for class names of a teacher that answers could not be written with."""
    for number, name in enumerate(classes):
        if not name.strip() or (problem == "multi_label" and LABEL_SEPARATOR in name):
            raise InputError(
                f"The teacher's class {number} is named {name!r}: a name is not blank, and of "
                f"several labels holds no {LABEL_SEPARATOR!r}, which joins them. Rename it."
            )


def _number(
    names: Labels | None, classes: Sequence[str], rows: int, problem: Problem
) -> NDArray[np.int64]:
    """Return gold as numbers, in the shape that the problem asks for."""
    shape = (rows,) if problem == "single_label" else (rows, len(classes))
    if names is None:
        return np.full(shape, NO_LABEL, np.int64)
    numbers = {name: number for number, name in enumerate(classes)}
    if problem == "single_label":
        return np.array([numbers[name] for (name,) in names], np.int64)
    gold = np.zeros(shape, np.int64)
    for row, labels in enumerate(names):
        gold[row, [numbers[label] for label in labels]] = 1
    return gold


def _remove_repeats(
    splits: dict[str, Split], classes: Sequence[str]
) -> tuple[dict[str, Split], list[Note]]:
    """Remove from each split the rows that a stronger split also has, and report them.

    Held-out rows are never removed, so that every run is measured on the same rows.
    """
    kept, findings = dict(splits), list[Note]()
    for name, stronger in STRONGER_SPLITS.items():
        if name not in kept:
            continue
        repeated_in = {
            text: other
            for other in reversed(stronger)
            if other in kept
            for text in kept[other].texts
        }
        sources = [repeated_in.get(text) for text in kept[name].texts]
        if all(sources):
            raise InputError(
                f"data.{name}: every row is also in data.{' or data.'.join(stronger)}. "
                "Give rows of its own."
            )
        for other in stronger:
            rows = [row for row, source in enumerate(sources) if source == other]
            if rows:
                left_out = f"were left out of {name} (row {shortlist(rows)})"
                repeats = f"{len(rows)} rows of {name} repeat {other} and {left_out}"
                findings.append(Note(Rank.KNOW, repeats))
        kept[name] = kept[name].take(np.array([source is None for source in sources]))
    return kept, [*findings, *_find_lost_classes(splits["train"], kept["train"], classes)]


def _find_lost_classes(before: Split, after: Split, classes: Sequence[str]) -> list[Note]:
    """Report classes that lost all rows of train; raise InputError if fewer than two are left."""
    left = after.rows_per_class(len(classes)) > 0
    gone = (before.rows_per_class(len(classes)) > 0) & ~left
    lost = sorted(classes[int(number)] for number in np.flatnonzero(gone))
    if lost and left.sum() < 2:
        raise InputError(
            f"data.train has one class only once rows that held_out or validation repeat are "
            f"left out; gone: {shortlist(lost)}. Give train rows of its own."
        )
    return [Note(Rank.ACT, f"train has no rows left of {name}") for name in lost]
