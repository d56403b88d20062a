"""Notes: what a user should hear of, and how urgently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Rank(StrEnum):
    """How urgent a note is, the most urgent first."""

    ACT = "must be acted on"
    KNOW = "should be known"
    FINE = "fine"


@dataclass(frozen=True)
class Note:
    """One thing to say to the user, in one sentence without its full stop."""

    rank: Rank
    text: str

    def __str__(self) -> str:
        return f"{self.rank}: {self.text}"


def sort_notes(notes: Iterable[Note]) -> list[Note]:
    """Return notes by their rank, those of one rank in the order given."""
    urgency = list(Rank)
    return sorted(notes, key=lambda note: urgency.index(note.rank))
