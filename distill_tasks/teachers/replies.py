"""What a function or a registered model returned for some texts, read as logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.problems.classification import LABEL_SEPARATOR, are_one_hot
from distill_tasks.teachers.base import ONE_HOT, Teacher
from distill_tasks.teachers.values import (
    Scale,
    one_hot,
    refuse_bad_values,
    refuse_unknown,
    to_logits,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from distill_tasks.core.notes import Note
    from distill_tasks.problems.classification import Problem
    from distill_tasks.teachers.base import Batches, LabellingContext

ALLOWED = "a row of numbers, a label, or a mapping of classes to numbers"
"""What may be returned for a text."""


PROBED_ROWS = 2
"""Rows that a teacher is asked about before any work."""


def ask_first_rows(teacher: Teacher, context: LabellingContext) -> list[Note]:
    """Ask a teacher about the first rows of train, and tell if its answers are one-hot."""
    texts = context.corpus.splits["train"].texts[:PROBED_ROWS]
    said = [logits for _, logits, *_ in teacher.answers(texts, context)]
    hard = bool(said) and are_one_hot(np.concatenate(said), context.corpus.problem)
    return [ONE_HOT] if hard else []


@dataclass(frozen=True)
class ReplyReader:
    """Reads what was returned for some texts: one item for each, in their order.

    An item is a label (of several labels a list, set, or text with ``|`` between them), numbers in
    the order of the classes, or a mapping of classes to numbers; None where there is no answer. A
    table has a column for each class, a column of labels, or those of a model of Potstill.
    """

    source: str
    """The subject of sentences about the answers, a plural."""
    classes: tuple[str, ...]
    problem: Problem
    values: Scale
    order: tuple[str, ...] | None = None
    """The order of numbers without names; that of the classes if it is not known."""

    def ask(
        self, answer: Callable[[list[str]], Any], texts: Sequence[str], batch_rows: int
    ) -> Batches:
        """Return what ``answer`` returns for texts, which it is given batch by batch."""
        for start in range(0, len(texts), batch_rows):
            batch = list(texts[start : start + batch_rows])
            rows, logits = self.read(answer(batch), batch)
            if len(rows):
                yield start + rows, logits

    def read(
        self, reply: Any, texts: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the numbers of the answered texts (rows,) and their logits (rows, classes).

        Raises InputError for another number of items than texts, labels that are no classes, NaN,
        and what is neither labels nor numbers.
        """
        items = self._list(reply)
        if len(items) != len(texts):
            raise InputError(
                f"{self.source} are {len(items)} for {len(texts)} texts. Return one for each text, "
                "in their order; None where there is none."
            )
        rows = np.array([row for row, item in enumerate(items) if item is not None], np.int64)
        answers = [items[row] for row in rows]
        labels = [self._find_labels(item) for item in answers]
        named = [names for names in labels if names is not None]
        if named and len(named) < len(labels):
            raise InputError(f"{self.source} are labels for some texts and numbers for others.")
        if named:
            values = one_hot(named, self.classes, self.source)
            return rows, to_logits(values, self.problem).astype(np.float32)
        values = self._read_numbers(answers)
        quoted = [repr(texts[row][:40]) for row in rows]
        refuse_bad_values(values, self.values, self.problem, source=self.source, rows=quoted)
        logits = to_logits(values, self.problem) if self.values == "probabilities" else values
        return rows, logits.astype(np.float32)

    def _list(self, reply: Any) -> list[Any]:
        """Return the items of a reply."""
        if hasattr(reply, "columns"):
            return self._list_table(reply)
        if isinstance(reply, str | bytes | Mapping) or not hasattr(reply, "__len__"):
            raise InputError(
                f"{self.source} are one {type(reply).__name__}. Return a list with {ALLOWED} for "
                "each text."
            )
        return list(reply)

    def _list_table(self, table: pd.DataFrame) -> list[Any]:
        """Return the rows of a table: probabilities as mappings, or labels."""
        names = {str(column): column for column in table.columns}
        if set(self.classes) <= names.keys():
            numbers = table[[names[name] for name in self.classes]].to_numpy()
            return [dict(zip(self.classes, row, strict=True)) for row in numbers]
        for column in ("probabilities", "label", *([*names] if len(names) == 1 else [])):
            if column in names:
                return list(table[names[column]])
        raise InputError(
            f"{self.source} have the columns {shortlist(names)}; the data has the classes "
            f"{shortlist(self.classes)}. Return a column for each class, or one named label."
        )

    def _find_labels(self, item: Any) -> list[str] | None:
        """Return the labels that an item names; None if it holds numbers."""
        if isinstance(item, str):
            if self.problem == "single_label":
                return [item]
            return [name for part in item.split(LABEL_SEPARATOR) if (name := part.strip())]
        if isinstance(item, int | np.integer) and not isinstance(item, bool):
            return [str(item)]
        several = isinstance(item, list | tuple | set | frozenset | np.ndarray)
        if self.problem == "multi_label" and several and all(isinstance(one, str) for one in item):
            return list(item)
        return None

    def _read_numbers(self, items: Sequence[Any]) -> NDArray[np.float64]:
        """Return the numbers (rows, classes) of items, in the order of the classes."""
        width, order = len(self.classes), self.order or self.classes
        values = np.empty((len(items), width))
        places = [order.index(name) for name in self.classes]
        for row, item in enumerate(items):
            numbers = self._take_classes(item) if isinstance(item, Mapping) else item
            try:
                values[row] = np.asarray(numbers, np.float64).reshape(-1)[places]
            except (TypeError, ValueError):
                raise InputError(
                    f"{self.source} hold {str(item)[:60]!r}, a {type(item).__name__}. Return "
                    f"{ALLOWED} for each text."
                ) from None
            except IndexError:
                raise self._refuse_width(item) from None
            if np.size(numbers) != width:
                raise self._refuse_width(item)
        return values

    def _refuse_width(self, item: Any) -> InputError:
        return InputError(
            f"{self.source} have {np.size(item)} numbers for a text; the data has "
            f"{len(self.classes)} classes: {shortlist(self.classes)}. Return one for each."
        )

    def _take_classes(self, item: Mapping[Any, Any]) -> list[Any]:
        """Return the numbers of a mapping in `order`; a class without probability has zero."""
        given = {str(name): number for name, number in item.items()}
        refuse_unknown(list(given), self.classes, self.source)
        absent = [name for name in self.classes if name not in given]
        if absent and self.values == "logits":
            raise InputError(f"{self.source} lack the logit of {absent[0]!r}. Give every class's.")
        return [given.get(name, 0.0) for name in self.order or self.classes]
