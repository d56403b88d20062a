"""Reading the user's rows into a corpus: checked, split, without repeats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill_tasks.corpus import NO_LABEL, SPLITS, Corpus, DataConfig, Split
from distill_tasks.errors import InputError, did_you_mean, shortlist
from distill_tasks.problem import LABEL_SEPARATOR, Problem, to_decisions
from distill_tasks.tables import check_column, read_table

if TYPE_CHECKING:
    import pandas as pd

Labels = list[tuple[str, ...]]
"""The labels of each row: exactly one in a single-label problem."""

STRONGER_SPLITS = {
    "validation": ("held_out",),
    "train": ("held_out", "validation"),
    "transfer": ("held_out", "validation", "train"),
}
"""The splits whose rows a split may not repeat."""


def read_corpus(
    config: DataConfig,
    seed: int,
    classes: Sequence[str] | None = None,
    problem: Problem = "single_label",
) -> Corpus:
    """Read, check and split the user's rows.

    ``classes`` are the teacher's, used where the data has no labels. Raises InputError for
    anything that would make a later stage fail or lie.
    """
    frames = {
        name: read_table(table, name)
        for name in SPLITS
        if (table := getattr(config, name)) is not None
    }
    texts = {name: _read_texts(frame, config.text_column, name) for name, frame in frames.items()}
    names, findings = _read_gold(frames, config.label_column, problem)
    order = _order_classes(names, classes, problem)
    splits = {
        name: Split(
            tuple(rows),
            _number(names.get(name), order, len(rows), problem),
            _read_slices(frames[name], config.slice_column) if name == "held_out" else None,
        )
        for name, rows in texts.items()
    }
    splits, repeats = _remove_repeats(splits, order)
    splits, carved = _carve_validation(splits, order, config.validation_share, seed)
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return Corpus(ordered, order, (*findings, *repeats, *carved), problem)


def read_rows(
    path: Path, text_column: str, label_column: str, problem: Problem = "single_label"
) -> tuple[Split, tuple[str, ...]]:
    """Read rows to compare models on; gold is absent where there is no label column.

    Returns the rows and the classes found in them. Raises InputError like `read_corpus`.
    """
    frame = read_table(str(path), "rows")
    texts = _read_texts(frame, text_column, "rows")
    if label_column not in frame.columns:
        return Split(tuple(texts), np.full(len(texts), NO_LABEL, np.int64)), ()
    names = _read_labels(frame, label_column, "rows", problem)
    classes = tuple(sorted({label for row in names for label in row}))
    return Split(tuple(texts), _number(names, classes, len(texts), problem)), classes


def _read_texts(frame: pd.DataFrame, column: str, split: str) -> list[str]:
    check_column(frame, column, split)
    if frame.empty:
        raise InputError(f"data.{split} has no rows. Give at least one, or leave the split out.")
    texts = frame[column].tolist()
    bad = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if bad:
        raise InputError(
            f"data.{split}: {len(bad)} texts are empty or no text (row {shortlist(bad)}, counted "
            f"from 0; first found: {texts[bad[0]]!r}). Remove or fill these rows."
        )
    return texts


def _read_gold(
    frames: dict[str, pd.DataFrame], column: str | None, problem: Problem
) -> tuple[dict[str, Labels], list[str]]:
    """Return the labels of every split that has gold, and what there is to say of them.

    Only held_out may lack the column, unless it has one whose name is close to it.
    """
    names: dict[str, Labels] = {}
    findings = []
    for split in ("train", "validation", "held_out"):
        if split not in frames or column is None:
            continue
        columns = frames[split].columns
        if split == "held_out" and column not in columns and not did_you_mean(column, columns):
            findings.append(
                f"held_out has no column {column!r}: it is scored against the teacher only, and no "
                "verdict can be given"
            )
            continue
        names[split] = _read_labels(frames[split], column, split, problem)
        bare = sum(not row for row in names[split])
        if bare:
            findings.append(f"{bare} rows of {split} carry none of the labels")
    return names, findings


def _read_labels(frame: pd.DataFrame, column: str, split: str, problem: Problem) -> Labels:
    check_column(frame, column, split)
    if problem == "multi_label":
        return [_read_several(labels, column, split) for labels in frame[column]]
    missing = np.flatnonzero(frame[column].isna())
    if missing.size:
        raise InputError(
            f"data.{split}: {missing.size} rows have no {column!r} (row {shortlist(missing)}). "
            "Label them, or move unlabelled rows to data.transfer."
        )
    listed = [label for label in frame[column] if isinstance(label, list | np.ndarray)]
    if listed:
        raise InputError(
            f"data.{split}: {column!r} holds lists of labels, as {list(listed[0])}. "
            "Say `problem: multi_label`."
        )
    return [(str(label),) for label in frame[column]]


def _read_several(labels: Any, column: str, split: str) -> tuple[str, ...]:
    """Return the distinct labels of one row: a list, or a string with ``|`` between them.

    A number is one label, as in a single-label problem; an empty cell means none.
    """
    import pandas as pd

    if isinstance(labels, str):
        words = [word.strip() for word in labels.split(LABEL_SEPARATOR)]
    elif isinstance(labels, list | tuple | np.ndarray):
        words = [str(label) for label in labels if label is not None]
    else:
        words = [] if pd.isna(labels) else [str(labels)]
    wrong = [word for word in words if LABEL_SEPARATOR in word]
    if wrong:
        raise InputError(
            f"data.{split}: the label {wrong[0]!r} of {column!r} holds a {LABEL_SEPARATOR!r}, "
            "which stands between labels. Rename it."
        )
    return tuple(dict.fromkeys(word for word in words if word))


def _read_slices(frame: pd.DataFrame, column: str | None) -> tuple[str, ...] | None:
    if column is None:
        return None
    check_column(frame, column, "held_out", "Set data.slice_column, or leave it out.")
    cells = zip(frame[column], frame[column].isna(), strict=True)
    return tuple("(empty)" if missing else str(value) for value, missing in cells)


def _order_classes(
    names: dict[str, Labels], teacher_classes: Sequence[str] | None, problem: Problem
) -> tuple[str, ...]:
    """Return the classes of train in the teacher's order if it has the same, else alphabetical."""
    if "train" not in names:
        if teacher_classes is None:
            raise InputError(
                "data.label_column is null and the teacher has no classes of its own. "
                "Label the train rows, or use a teacher of kind transformers or saved."
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
            raise InputError(
                f"data.{split} has labels that train never saw: {shortlist(unseen)}{near}. "
                "Add rows of these classes to train, or remove them."
            )
    if teacher_classes is not None and set(teacher_classes) == set(classes):
        return tuple(teacher_classes)
    return classes


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
) -> tuple[dict[str, Split], list[str]]:
    """Remove from training what held_out or validation also has, and say which rows it was.

    Held-out rows are never removed: they are what was agreed to be measured on.
    """
    kept, findings = dict(splits), []
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
                findings.append(
                    f"{len(rows)} rows of {name} repeat {other} and were left out of {name} "
                    f"(row {shortlist(rows)})"
                )
        kept[name] = kept[name].take(np.array([source is None for source in sources]))
    return kept, [*findings, *_find_lost_classes(splits["train"], kept["train"], classes)]


def _find_lost_classes(before: Split, after: Split, classes: Sequence[str]) -> list[str]:
    """Say which classes lost all their rows of train, and refuse to go on with a single one."""
    left = after.rows_per_class(len(classes)) > 0
    gone = (before.rows_per_class(len(classes)) > 0) & ~left
    lost = sorted(classes[int(number)] for number in np.flatnonzero(gone))
    if lost and left.sum() < 2:
        raise InputError(
            f"data.train has one class only once rows that held_out or validation repeat are "
            f"left out; gone: {shortlist(lost)}. Give train rows of its own."
        )
    return [f"train has no rows left of {name}" for name in lost]


def _carve_validation(
    splits: dict[str, Split], classes: Sequence[str], share: float, seed: int
) -> tuple[dict[str, Split], list[str]]:
    """Carve validation from train, the same share of each class, where the user gave none."""
    if "validation" in splits:
        return splits, []
    train = splits["train"]
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    small: list[str] = []
    for name, group in _stratify(train, classes):
        rows = generator.permutation(group)
        if rows.size < 2:
            small.append(f"{name} ({rows.size} row)")
            continue
        chosen.extend(rows[: min(max(1, round(share * rows.size)), rows.size - 1)])
    if not chosen:
        raise InputError(
            f"data.train has {len(train)} rows, too few to carve a validation split from. "
            "Give data.validation, or at least two rows of one class."
        )
    mask = np.zeros(len(train), bool)
    mask[chosen] = True
    findings = [f"validation carved from train: {mask.sum()} of {len(train)} rows"]
    if small:
        findings.append(f"too small to split, kept whole in train: {shortlist(small)}")
    carved = {**splits, "train": train.take(~mask), "validation": train.take(mask)}
    return carved, findings


def _stratify(train: Split, classes: Sequence[str]) -> list[tuple[str, NDArray[np.int64]]]:
    """Return disjoint groups of row numbers, each with the name of its class.

    A row with several labels belongs to the rarest of them. Source: Sechidis, Tsoumakas, Vlahavas
    2011, "On the Stratification of Multi-Label Data", without its quota for each split.
    """
    if not train.has_gold:
        return [("rows without gold", np.arange(len(train)))]
    member = to_decisions(train.gold, len(classes))
    free = np.ones(len(train), bool)
    groups = []
    rarest_first = np.argsort(member.sum(axis=0), kind="stable")
    for number in rarest_first if train.gold.ndim == 2 else range(len(classes)):
        rows = np.flatnonzero(member[:, number] & free)
        free[rows] = False
        if rows.size:
            groups.append((classes[int(number)], rows))
    if free.any():
        groups.append(("rows with no label", np.flatnonzero(free)))
    return groups
