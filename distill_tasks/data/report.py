"""The types of the data report."""

from __future__ import annotations

from dataclasses import dataclass

from distill_tasks.core.notes import Note


@dataclass(frozen=True)
class SplitReport:
    """One split."""

    name: str
    rows: int
    classes: dict[str, int]
    """Gold rows of each class; empty where there is no gold."""
    exact_repeats: int
    """Rows whose text stood in the split before."""
    near_repeats: int
    """Rows that nearly repeat another one of the split, beyond the exact ones."""
    truncated: float | None
    """Share of rows longer than the teacher reads; None where its tokenizer is not known."""


@dataclass(frozen=True)
class Overlap:
    """Rows of one split that nearly repeat a row of a split that scores."""

    split: str
    scoring: str
    rows: int
    example: tuple[str, str]


@dataclass(frozen=True)
class DataReport:
    """What was found in all splits, and what of it should worry the user."""

    splits: list[SplitReport]
    overlaps: list[Overlap]
    max_length: int | None
    warnings: list[Note]
