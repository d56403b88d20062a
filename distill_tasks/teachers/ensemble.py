"""Teacher kind ``ensemble``: the weighted mean of what several teachers say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError, PotstillError, shortlist
from distill_tasks.core.notes import Note
from distill_tasks.core.settings import Settings
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.problems.classification import probabilities
from distill_tasks.teachers.base import ONE_HOT, Teacher, join_identity
from distill_tasks.teachers.keeping import keep_answers
from distill_tasks.teachers.ready import ReadyTeacher
from distill_tasks.teachers.values import to_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.llm.estimate import Estimate
    from distill_tasks.problems.classification import Problem
    from distill_tasks.teachers.base import Batches, LabellingContext, Tried

    Ask = Callable[
        ["_Seat", Sequence[str], tuple[str, ...]], tuple[NDArray[np.int64], NDArray[np.float64]]
    ]
    """Returns the rows that a member answers, and its probabilities for them (rows, classes)."""

NO_MEMBERS = {
    "finetune": "it is trained first: train it in a run of its own, and name the folder of its "
    "weights here with kind transformers",
    "ensemble": "its members can stand here themselves",
}
"""Kinds that cannot be members, and what to do instead."""


class Member(Settings):
    """One teacher of an ensemble."""

    teacher: Annotated[ReadyTeacher, Field(discriminator="kind")] = Field(
        description="A teacher that is ready to answer, of any kind but `finetune` and `ensemble`."
    )
    weight: float = Field(
        1.0, gt=0, le=1e6, description="Its weight in the mean, relative to the others'."
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _refuse_unready(cls, written: Any) -> Any:
        kind = written.get("kind") if isinstance(written, dict) else None
        if kind in NO_MEMBERS:
            raise ValueError(f"a member cannot be of kind {kind}; {NO_MEMBERS[kind]}")
        return written


@dataclass(frozen=True)
class _Seat:
    """A member in its place: its number, weight, and the context in which it answers."""

    number: int
    teacher: Teacher
    weight: float
    context: LabellingContext

    @property
    def corpus(self) -> Corpus:
        """The corpus with the classes in the member's own order, as if it stood alone."""
        return self.context.corpus

    @contextmanager
    def named(self) -> Iterator[None]:
        """Say whose an error is that is raised inside the block."""
        with _named(self.number, self.teacher):
            yield


class EnsembleTeacher(Teacher):
    """Several teachers, each asked by itself, whose probabilities are averaged."""

    kind: Literal["ensemble"] = Field("ensemble", description="The kind of teacher.")
    members: tuple[Member, ...] = Field(
        min_length=2, max_length=20, description="The teachers, two or more."
    )

    def check(self, columns: RowFormat, problem: Problem) -> tuple[str, ...] | None:
        """Return the classes of the first member that has its own; None if none has.

        Raises InputError for a member that cannot answer, and for members of different classes.
        """
        orders = self._check_members(columns, problem)
        own = [order for order in orders if order is not None]
        for order in own:
            if set(order) != set(own[0]):
                raise InputError(
                    f"The teacher's members have different classes: {shortlist(sorted(own[0]))}; "
                    f"and {shortlist(sorted(order))}. Use teachers of the same classes."
                )
        return own[0] if own else None

    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Return the members' oddities, each with the member's number."""
        orders = self._check_members(columns, corpus.problem)
        notes: list[Note] = []
        for number, (member, order) in enumerate(zip(self.members, orders, strict=True)):
            with _named(number, member.teacher):
                found = member.teacher.check_rows(_reorder(corpus, order), columns)
            notes += _tell(number, found)
        return notes

    def check_licence(self, accepted: bool) -> None:
        """Raise InputError if the terms of a member must be accepted, and are not."""
        for number, member in enumerate(self.members):
            with _named(number, member.teacher):
                member.teacher.check_licence(accepted)

    def say_licence(self) -> str:
        """Return the terms of those members that have some."""
        terms = [member.teacher.say_licence() for member in self.members]
        return "; ".join(filter(None, dict.fromkeys(terms)))

    def estimate(self, context: LabellingContext) -> Estimate | None:
        """Return what the missing answers of all members cost; None where none costs anything."""
        from distill_tasks.llm.estimate import join_estimates

        found = [seat.teacher.estimate(seat.context) for seat in self._seat(context)]
        paid = [estimate for estimate in found if estimate is not None]
        return join_estimates(paid) if paid else None

    def show(self, text: str, context: LabellingContext) -> str:
        """Return what the members are asked about a text, where that is more than the text."""
        shown = [seat.teacher.show(text, seat.context) for seat in self._seat(context)]
        return "\n\n".join(dict.fromkeys(one for one in shown if one != text)) or text

    def try_rows(self, texts: Sequence[str], context: LabellingContext) -> list[Tried]:
        """Return how those members answer some texts whose answers cost something."""
        tried = []
        for seat in self._seat(context):
            with seat.named():
                tried += seat.teacher.try_rows(texts, seat.context)
        return tried

    def probe(self, context: LabellingContext) -> list[Note]:
        """Return the oddities of what the members answer to a few rows."""
        notes: list[Note] = []
        for seat in self._seat(context):
            with seat.named():
                notes += _tell(seat.number, seat.teacher.probe(seat.context))
        return notes

    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of the members' digests and weights."""
        total = sum(member.weight for member in self.members)
        shares = [round(member.weight / total, 9) for member in self.members]
        digests = [member.teacher.digest(corpus, seed, balanced) for member in self.members]
        return digest(self.kind, sorted(zip(digests, shares, strict=True)), corpus.classes)

    def identify(self, context: LabellingContext) -> str:
        """Return what the members say of themselves; empty if none says anything."""
        said = []
        for seat in self._seat(context):
            with seat.named():
                said.append(seat.teacher.identify(seat.context))
        return json.dumps(said) if any(said) else ""

    def answers(self, texts: Sequence[str], context: LabellingContext) -> Batches:
        """Return the mean's answers to the rows that all members answer, in one batch.

        A member's own answers are kept as if it stood alone, and it is asked what is missing.
        """
        rows, logits = self._average(texts, context, _ask)
        if len(rows):
            yield rows, logits

    @property
    def rows_asked_twice(self) -> int:
        """How many rows are asked twice: as few as any member is that may answer otherwise."""
        wanted = (member.teacher.rows_asked_twice for member in self.members)
        return min(filter(None, wanted), default=0)

    def answer_again(
        self, texts: Sequence[str], context: LabellingContext
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the mean's answers when the members that may answer otherwise are asked anew."""
        return self._average(texts, context, _ask_again)

    def _average(
        self, texts: Sequence[str], context: LabellingContext, ask: Ask
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        mean = np.zeros((len(texts), len(context.corpus.classes)))
        answered = np.ones(len(texts), bool)
        total = sum(member.weight for member in self.members)
        for seat in self._seat(context):
            with seat.named():
                rows, stated = ask(seat, texts, context.corpus.classes)
            answered &= np.isin(np.arange(len(texts)), rows)
            mean[rows] += seat.weight / total * stated
        rows = np.flatnonzero(answered)
        return rows, to_logits(mean[rows], context.corpus.problem).astype(np.float32)

    def _check_members(self, columns: RowFormat, problem: Problem) -> list[tuple[str, ...] | None]:
        """Return each member's own order of classes."""
        orders = []
        for number, member in enumerate(self.members):
            with _named(number, member.teacher):
                orders.append(member.teacher.check(columns, problem))
        return orders

    def _seat(self, context: LabellingContext) -> Iterator[_Seat]:
        """Return the members, each with the context that it would have alone."""
        orders = self._check_members(context.columns, context.corpus.problem)
        identities = json.loads(context.identity) if context.identity else [""] * len(orders)
        for number, (member, order) in enumerate(zip(self.members, orders, strict=True)):
            own = replace(
                context,
                corpus=_reorder(context.corpus, order),
                weights=member.teacher.start,
                identity=identities[number],
            )
            yield _Seat(number, member.teacher, member.weight, own)


def _reorder(corpus: Corpus, order: tuple[str, ...] | None) -> Corpus:
    """Return the corpus as it is read for a teacher with classes of its own, or with none."""
    same = order is not None and set(order) == set(corpus.classes)
    return corpus.reorder(order if order and same else tuple(sorted(corpus.classes)))


def _ask(
    seat: _Seat, texts: Sequence[str], classes: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows that a member answers, and its probabilities for them (rows, classes)."""
    context, corpus = seat.context, seat.corpus
    key = join_identity(seat.teacher.digest(corpus, 0, balanced=False), context.identity)
    store = SoftLabelStore(context.store.labels, key, corpus.classes)
    due = store.missing(texts)
    if due:
        about = f"labelling by member {seat.number + 1}"
        keep_answers(seat.teacher.answers(due, context), due, store, about)
    rows, logits = _read_answered(store, texts, corpus)
    return rows, _state(logits, corpus, classes)


def _ask_again(
    seat: _Seat, texts: Sequence[str], classes: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the same when a member is asked anew; one that always answers alike is not."""
    if not seat.teacher.rows_asked_twice:
        return _ask(seat, texts, classes)
    rows, logits = seat.teacher.answer_again(texts, seat.context)
    return rows, _state(logits, seat.corpus, classes)


def _state(
    logits: NDArray[np.float32], corpus: Corpus, classes: tuple[str, ...]
) -> NDArray[np.float64]:
    """Return logits (rows, classes) in a corpus's order as probabilities in that of ``classes``."""
    stated = probabilities(logits, corpus.problem)
    return stated[:, [corpus.classes.index(name) for name in classes]]


def _read_answered(
    store: SoftLabelStore, texts: Sequence[str], corpus: Corpus
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows that a member answered (rows,) and its logits for them (rows, classes).

    In a run of its own, a row of validation or held-out that it did not answer was kept as zeros.
    """
    absent, settled = set(store.missing(texts)), set(corpus.evaluation_texts)
    rows = np.array([row for row, text in enumerate(texts) if text not in absent], np.int64)
    logits = store.read([texts[row] for row in rows]).logits
    known = (logits != 0).any(axis=1) | [texts[row] not in settled for row in rows]
    return rows[known], logits[known]


@contextmanager
def _named(number: int, teacher: Teacher) -> Iterator[None]:
    try:
        yield
    except PotstillError as error:
        error.args = (f"Member {number + 1} of the teacher ({teacher.kind}): {error}",)
        raise


def _tell(number: int, notes: Sequence[Note]) -> list[Note]:
    """Return a member's notes with its number, without what is not true of a mean."""
    return [
        replace(note, text=f"member {number + 1} of the teacher: {note.text}")
        for note in notes
        if note != ONE_HOT
    ]
