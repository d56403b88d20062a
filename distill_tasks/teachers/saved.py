"""Teacher kind ``saved``: a teacher's answers, read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from distill_tasks.core.digests import digest, digest_file
from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.gold import read_gold
from distill_tasks.data.tables import read_table
from distill_tasks.data.texts import join_columns
from distill_tasks.problems.classification import are_one_hot
from distill_tasks.teachers.base import ONE_HOT, Teacher
from distill_tasks.teachers.values import (
    SUM_TOLERANCE,
    Scale,
    one_hot,
    refuse_bad_values,
    to_logits,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.problems.classification import Problem
    from distill_tasks.teachers.base import Batches, LabellingContext

    Answers = tuple[list[str], NDArray[np.float32], tuple[str, ...]]
    """The texts, their logits (rows, classes) and the classes in column order."""

ANSWER_TOLERANCE = 0.01
"""Two answers to one text that differ by less count as the same answer, rounded differently."""


class SavedTeacher(Teacher):
    """A file with the text of each row, and one column of numbers for each class or a label."""

    kind: Literal["saved"] = Field("saved", description="The kind of teacher.")
    path: str = Field(
        description="Parquet, csv or jsonl: the text column, and one column for each class."
    )
    label_column: str | None = Field(
        None,
        description="Column with the teacher's label, where it gave no numbers: all probability on "
        "it; further columns are ignored.",
    )
    values: Scale = Field(
        "probabilities",
        description="What the class columns hold; probabilities of a single label sum to one.",
    )

    def check(self, columns: RowFormat, problem: Problem) -> tuple[str, ...]:
        """Return the classes, which are the columns of its file, or the labels in it."""
        return read_answers(self, columns, None, problem)[2]

    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Return oddities of the answers; raise InputError for a row without an answer."""
        texts, logits, _ = self._read(corpus, columns)
        answered = set(texts)
        for name, split in corpus.splits.items():
            absent = [text for text in split.texts if text not in answered]
            if absent:
                raise InputError(
                    f"Saved answers {self.path} lack {len(absent)} rows of {name}, the first being "
                    f"{absent[0][:60]!r}. Add their answers, or drop these rows."
                )
        hard = [ONE_HOT] if are_one_hot(logits, corpus.problem) else []
        return [*find_probabilities(self, logits, corpus.problem), *hard]

    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of its file's bytes and of how they are read."""
        file = digest_file(Path(self.path))
        labels = [] if self.label_column is None else [self.label_column, corpus.classes]
        return digest(self.kind, self.values, corpus.problem, file, *labels)

    def answers(self, texts: Sequence[str], context: LabellingContext) -> Batches:
        """Return its file's answers to texts, in one batch."""
        answered, logits, _ = self._read(context.corpus, context.columns)
        rows = {text: row for row, text in enumerate(answered)}
        return iter([(np.arange(len(texts)), logits[[rows[text] for text in texts]])])

    def _read(self, corpus: Corpus, columns: RowFormat) -> Answers:
        return read_answers(self, columns, corpus.classes, corpus.problem)


def read_answers(
    config: SavedTeacher,
    columns: RowFormat,
    classes: Sequence[str] | None,
    problem: Problem = "single_label",
) -> Answers:
    """Return the texts, their logits (rows, classes) and the classes in column order.

    Raises InputError for a missing file or column, NaN, two different answers to one text, labels
    that are no classes, or values that are no probabilities: those lie between zero and one, and
    sum to one in a single-label problem.
    """
    table = _read_table(config, columns)
    if config.label_column is None:
        values, order = _read_numbers(config, table, columns, classes)
        refuse_bad_values(values, config.values, problem, source=_source(config))
    else:
        table = table[table[config.label_column].notna()]
        values, order = _read_labels(config, table, columns, classes, problem)
    texts = join_columns(table, columns)
    _refuse_contradictions(config, texts, values)
    if config.values == "probabilities" or config.label_column is not None:
        values = to_logits(values, problem)
    return texts, values.astype(np.float32), order


def _read_numbers(
    config: SavedTeacher, table: pd.DataFrame, columns: RowFormat, classes: Sequence[str] | None
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the numbers (rows, classes) of the class columns, and the classes."""
    found = tuple(column for column in table.columns if column not in columns.text_columns)
    if classes is not None and set(found) != set(classes):
        raise InputError(
            f"Saved answers {config.path} have the classes {shortlist(sorted(found))}; the data "
            f"has {shortlist(sorted(classes))}. Name the columns as the data's labels, or say "
            "teacher.label_column if one holds labels."
        )
    order = tuple(classes) if classes is not None else found
    try:
        return table[list(order)].astype(np.float64).to_numpy(), order
    except (ValueError, TypeError):
        raise InputError(
            f"Saved answers {config.path} hold values that are no numbers. Only "
            f"{shortlist(map(repr, columns.text_columns))} may hold text; every other column is a "
            "class. Labels without numbers are read by teacher.label_column."
        ) from None


def _read_labels(
    config: SavedTeacher,
    table: pd.DataFrame,
    columns: RowFormat,
    classes: Sequence[str] | None,
    problem: Problem,
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return one-hot probabilities (rows, classes) of the labels, and the classes."""
    written = columns.model_copy(update={"label_column": config.label_column})
    names = read_gold({"answers": table}, written, problem, classes or ())[0]["answers"]
    found = sorted({name for row in names for name in row})
    order = tuple(classes) if classes is not None else tuple(found)
    return one_hot(names, order, _source(config)), order


def find_probabilities(
    config: SavedTeacher, logits: NDArray[np.float32], problem: Problem
) -> list[Note]:
    """Return a note if values declared as logits (rows, classes) look like probabilities."""
    inside = ((logits >= 0) & (logits <= 1)).all()
    off = np.abs(logits.sum(axis=1) - 1).max(initial=0) if problem == "single_label" else 0.0
    if config.values != "logits" or not inside or off > SUM_TOLERANCE:
        return []
    oddity = f"saved answers {config.path} are declared as logits but look like probabilities"
    advice = "all from 0 to 1; if they are, set teacher.values: probabilities"
    return [Note(Rank.ACT, f"{oddity}, {advice}")]


def _read_table(config: SavedTeacher, columns: RowFormat) -> pd.DataFrame:
    import pandas as pd

    path = Path(config.path)
    if not path.is_file():
        raise InputError(f"Saved answers {config.path} do not exist. Correct `teacher.path`.")
    if path.suffix in (".csv", ".jsonl"):
        table = read_table(config.path, "answers")
    else:
        try:
            table = pd.read_parquet(path)
        except (ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"Saved answers {config.path} are no parquet file: {reason}") from None
    needed = [*columns.text_columns, *([config.label_column] if config.label_column else [])]
    absent = [name for name in needed if name not in table.columns]
    if absent:
        ties = "The text column ties the answers to the rows."
        raise InputError(
            f"Saved answers {config.path} have no column {absent[0]!r}"
            f"{did_you_mean(absent[0], table.columns)}, only {shortlist(table.columns)}. {ties}"
        )
    return table


def _refuse_contradictions(
    config: SavedTeacher, texts: Sequence[str], values: NDArray[np.float64]
) -> None:
    """Raise InputError for texts that occur twice with different answers."""
    first_row = {text: row for row, text in reversed(list(enumerate(texts)))}
    first = np.array([first_row[text] for text in texts], np.int64)
    apart = np.abs(values - values[first]).max(axis=1, initial=0) > ANSWER_TOLERANCE
    if apart.any():
        pairs = [f"{first[row]} and {row}" for row in np.flatnonzero(apart)]
        raise InputError(
            f"Saved answers {config.path} have two different answers to {len(pairs)} texts (row "
            f"{shortlist(pairs)}). Keep one row of each text."
        )


def _source(config: SavedTeacher) -> str:
    """Return the subject of sentences about its answers."""
    return f"Saved answers {config.path}"
