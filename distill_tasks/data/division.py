"""Dividing one table into files: rows to learn from, rows to be scored on, rows without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.errors import InputError
from distill_tasks.data.carving import draw_of_each
from distill_tasks.data.survey import Survey, find_empty_texts, find_unlabelled, split_labels

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT_SHARE = 0.2
"""Share of the labelled texts that is held out."""


def divide(
    frame: pd.DataFrame, survey: Survey, *, hold_out: bool, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Return the rows as train, held_out (if asked for) and transfer, those without labels.

    Rows with an empty text are left out. Raises InputError if too few labelled texts are left.
    """
    usable = frame[~find_empty_texts(frame, survey.text_columns)]
    bare = find_unlabelled(usable, survey.label_column)
    labelled = usable if survey.label_column is None else usable[~bare]
    parts = {"train": labelled}
    if hold_out:
        held_out = _draw(labelled, survey, seed)
        parts = {"train": labelled[~held_out], "held_out": labelled[held_out]}
    if survey.label_column is not None and bare.any():
        parts["transfer"] = usable[bare]
    return parts


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write rows as csv, jsonl or parquet, as the path's suffix says."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_parquet(path, index=False)


def _draw(rows: pd.DataFrame, survey: Survey, seed: int) -> NDArray[np.bool_]:
    """Return which rows are held out: the same share of each class, equal texts together.

    A class with a single text stays in train, and so does a row with a label that only it has.
    """
    texts = list(zip(*(rows[name].astype(str) for name in survey.text_columns), strict=True))
    labels = _read_labels(rows, survey)
    groups: dict[str, list[tuple[str, ...]]] = {}
    for text, names in dict(zip(texts, labels, strict=True)).items():
        rarest = min(names, key=lambda name: (survey.classes.get(name, 0), name), default="")
        groups.setdefault(rarest, []).append(text)
    chosen = set(draw_of_each(groups.values(), HELD_OUT_SHARE, seed))
    left = {
        name
        for text, names in zip(texts, labels, strict=True)
        if text not in chosen
        for name in names
    }
    chosen -= {
        text for text, names in zip(texts, labels, strict=True) if not left.issuperset(names)
    }
    if not chosen:
        raise InputError(
            f"{len(groups)} classes with {len(set(texts))} texts are too few to hold any out. "
            "Label more rows, or give the rows to score on: --held-out FILE."
        )
    return np.array([text in chosen for text in texts])


def _read_labels(rows: pd.DataFrame, survey: Survey) -> list[tuple[str, ...]]:
    if survey.label_column is None:
        return [()] * len(rows)
    cells = rows[survey.label_column]
    return [tuple(split_labels(cell, survey.label_separator)) for cell in cells]
