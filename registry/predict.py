"""Asking a model of the registry about a whole file, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.core.live import Progress
from distill_tasks.data.streams import WRITERS, read_batches
from distill_tasks.scoring.predictions import ask_by_length
from registry.served import read_fields

if TYPE_CHECKING:
    from distill_tasks.data.streams import Batch, Row

ANSWERS = ("label", "confidence", "abstain")
"""The columns that are written beside those of the file."""


@dataclass(frozen=True)
class Predicted:
    """What became of the rows of a file."""

    rows: int
    empty: int
    """Rows without a text, which have no label."""
    abstained: int
    """Rows with a label that is less sure than the model was asked to be."""
    columns: tuple[str, ...]
    """The names of the columns with label, confidence and abstention."""


def predict_file(
    model: Any, source: Path, target: Path, text_columns: Sequence[str] = ()
) -> Predicted:
    """Write the rows of a file with a `ServedModel`'s label, confidence and abstention.

    Raises InputError for a file that cannot be read or written, or that lacks the text columns.
    """
    progress = Progress(f"predict {source.name}", "%")
    rows = empty = abstained = 0
    texts: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    progress.start(100)
    try:
        with WRITERS[target.suffix](target) as writer:
            for batch in read_batches(source):
                if not columns:
                    texts = choose_columns(model, batch.columns, text_columns, source)
                    columns = name_answers(batch.columns)
                answers = _answer(model, [_read_text(model, row, texts) for row in batch.rows])
                if not rows:
                    _refuse_no_texts(batch, answers[0], texts, source)
                writer.write(batch, dict(zip(columns, answers, strict=True)))
                rows += len(batch.rows)
                empty += answers[0].count(None)
                abstained += sum(answers[2]) - answers[0].count(None)
                progress.reach(round(100 * batch.share))
    finally:
        progress.stop()
    return Predicted(rows, empty, abstained, columns)


def choose_columns(
    model: Any, columns: Sequence[str], named: Sequence[str], source: Path
) -> tuple[str, ...]:
    """Return the columns with the text: those named, the model's fields, `text`, or the only one.

    Raises InputError for a file that lacks them.
    """
    wanted = tuple(named) or read_fields(model) or ("text",)
    if not named and "text" in columns and not set(wanted) <= set(columns):
        return ("text",)
    if wanted == ("text",) and not named and "text" not in columns and len(columns) == 1:
        return tuple(columns)
    absent = [name for name in wanted if name not in columns]
    if absent and columns:
        near = did_you_mean(absent[0], columns)
        raise InputError(
            f"{source} has no column {absent[0]!r}{near}; it has {shortlist(columns)}. "
            "Name the one with the texts: --text-column NAME."
        )
    return wanted


def name_answers(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the answers' columns, with `predicted_` where one is taken."""
    taken = set(ANSWERS) & set(columns)
    names = tuple(f"predicted_{name}" for name in ANSWERS) if taken else ANSWERS
    if taken and set(names) & set(columns):
        raise InputError(
            f"The file has the columns {shortlist(sorted(set(names) & set(columns)))} already. "
            "Rename them."
        )
    return names


def _read_text(model: Any, row: Row, columns: Sequence[str]) -> str | None:
    """Return a row's text as the model reads it; None for one without text."""
    cells = {name: row.get(name) for name in columns}
    if any(cell is not None and not isinstance(cell, str) for cell in cells.values()):
        return None
    fields = read_fields(model)
    text = (
        model.join(cells) if fields == tuple(columns) else "\n".join(filter(None, cells.values()))
    )
    return text if text.strip() and not _has_half_character(text) else None


def _has_half_character(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _answer(model: Any, texts: Sequence[str | None]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return label, confidence and abstention of each text; a row without text abstains."""
    there = [text for text in texts if text is not None]
    answers = iter(ask_by_length(model.answer, there))
    said = [None if text is None else next(answers) for text in texts]
    return (
        [answer and answer.label for answer in said],
        [answer and answer.confidence for answer in said],
        [answer is None or bool(answer.abstain) for answer in said],
    )


def _refuse_no_texts(
    batch: Batch, labels: Sequence[Any], texts: Sequence[str], source: Path
) -> None:
    if batch.rows and all(label is None for label in labels):
        raise InputError(
            f"{source} holds no text in {', '.join(map(repr, texts))} of its first "
            f"{len(batch.rows):,} rows. Name the column with the texts: --text-column NAME."
        )
