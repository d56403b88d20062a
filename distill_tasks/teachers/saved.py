"""Teacher kind ``saved``: a teacher's answers, read from a parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from distill_tasks.core.digests import digest, digest_file
from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.core.notes import Note, Rank
from distill_tasks.problems.classification import are_one_hot
from distill_tasks.teachers.base import ONE_HOT, Teacher

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.problems.classification import Problem
    from distill_tasks.teachers.base import Batches
    from distill_tasks.training.checkpoint import Checkpoint

    Answers = tuple[list[str], NDArray[np.float32], tuple[str, ...]]
    """The texts, their logits (rows, classes) and the classes in column order."""

SMALLEST_PROBABILITY = 1e-6
"""Probabilities of zero are raised to this, so that their logarithm is finite."""
SUM_TOLERANCE = 1e-3
"""How far from one the probabilities of a row may add up."""
ANSWER_TOLERANCE = 0.01
"""Two answers to one text that differ by less count as the same answer, rounded differently."""


class SavedTeacher(Teacher):
    """A parquet file with the text of each row and one column of numbers for each class."""

    kind: Literal["saved"] = Field("saved", description="The kind of teacher.")
    path: str = Field(description="Parquet file: the text column, then one column for each class.")
    values: Literal["logits", "probabilities"] = Field(
        "probabilities",
        description="What the class columns hold; probabilities of a single label sum to one.",
    )

    def check(self, columns: RowFormat, problem: Problem) -> tuple[str, ...]:
        """Return the classes, which are the columns of its file."""
        return read_answers(self, columns.text_column, None, problem)[2]

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
        return digest(self.kind, self.values, corpus.problem, digest_file(Path(self.path)))

    def answers(
        self,
        texts: Sequence[str],
        corpus: Corpus,
        columns: RowFormat,
        weights: Checkpoint | None,
    ) -> Batches:
        """Return its file's answers to texts, in one batch."""
        answered, logits, _ = self._read(corpus, columns)
        rows = {text: row for row, text in enumerate(answered)}
        return iter([(np.arange(len(texts)), logits[[rows[text] for text in texts]])])

    def _read(self, corpus: Corpus, columns: RowFormat) -> Answers:
        return read_answers(self, columns.text_column, corpus.classes, corpus.problem)


def read_answers(
    config: SavedTeacher,
    text_column: str,
    classes: Sequence[str] | None,
    problem: Problem = "single_label",
) -> Answers:
    """Return the texts, their logits (rows, classes) and the classes in column order.

    Raises InputError for a missing file or column, NaN, two different answers to one text, or
    values that are no probabilities: those lie between zero and one, and sum to one in a
    single-label problem.
    """
    table = _read_table(config, text_column)
    found = tuple(column for column in table.columns if column != text_column)
    if classes is not None and set(found) != set(classes):
        raise InputError(
            f"Saved answers {config.path} have the classes {shortlist(sorted(found))}; the data "
            f"has {shortlist(sorted(classes))}. Name the columns as the data's labels."
        )
    order = tuple(classes) if classes is not None else found
    try:
        values = table[list(order)].to_numpy(np.float64)
    except (ValueError, TypeError):
        raise InputError(
            f"Saved answers {config.path} hold values that are no numbers. "
            f"Only {text_column!r} may hold text; every other column is a class."
        ) from None
    _refuse_bad_rows(config, values, problem)
    _refuse_contradictions(config, table[text_column], values)
    if config.values == "probabilities":
        values = _to_logits(values, problem)
    return table[text_column].tolist(), values.astype(np.float32), order


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


def _read_table(config: SavedTeacher, text_column: str) -> pd.DataFrame:
    import pandas as pd

    if not Path(config.path).is_file():
        raise InputError(f"Saved answers {config.path} do not exist. Correct `teacher.path`.")
    try:
        table = pd.read_parquet(config.path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"Saved answers {config.path} are no parquet file: {reason}") from None
    if text_column not in table.columns:
        raise InputError(
            f"Saved answers {config.path} have no column {text_column!r}, only "
            f"{shortlist(table.columns)}. The text column ties the answers to the rows."
        )
    return table


def _to_logits(values: NDArray[np.float64], problem: Problem) -> NDArray[np.float64]:
    if problem == "single_label":
        return np.log(np.maximum(values, SMALLEST_PROBABILITY))
    clipped = np.clip(values, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    logits: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits


def _refuse_bad_rows(config: SavedTeacher, values: NDArray[np.float64], problem: Problem) -> None:
    most = np.finfo(np.float32).max  # beyond it they become infinite
    broken = np.flatnonzero(~(np.abs(values) <= most).all(axis=1))
    if broken.size:
        raise InputError(
            f"Saved answers {config.path} have NaN or infinite values in {broken.size} rows "
            f"(row {shortlist(broken)}). Ask the teacher again for those rows."
        )
    if config.values == "logits":
        return
    outside = ((values < 0) | (values > 1 + 1e-6)).any(axis=1)
    if problem == "multi_label":
        if outside.any():
            raise InputError(
                f"Saved answers {config.path} are no probabilities in {outside.sum()} rows (row "
                f"{shortlist(np.flatnonzero(outside))}). Give 0 to 1, or say `values: logits`."
            )
        return
    off = np.flatnonzero((np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE) | outside)
    if off.size:
        raise InputError(
            f"Saved answers {config.path} do not sum to one in {off.size} rows "
            f"(row {shortlist(off)}). Normalise them, or say `values: logits`."
        )


def _refuse_contradictions(
    config: SavedTeacher, texts: pd.Series[str], values: NDArray[np.float64]
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
