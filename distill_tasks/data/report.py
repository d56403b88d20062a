"""The types of the data report."""

from __future__ import annotations

from dataclasses import dataclass

from distill_tasks.core.notes import Note


@dataclass(frozen=True)
class SplitReport:
    """What the data report says about one split."""

    name: str
    rows: int
    classes: dict[str, int]
    """Number of gold rows of each class; empty without gold."""
    exact_repeats: int
    """Number of rows whose text occurred earlier in the split."""
    near_repeats: int
    """Number of rows that nearly, but not exactly, repeat another row of the split."""
    truncated: float | None
    """Share of rows longer than the teacher reads; None if its tokenizer is not known."""


@dataclass(frozen=True)
class Overlap:
    """Rows of one split that nearly repeat a row of validation or held_out."""

    split: str
    scoring: str
    rows: int
    example: tuple[str, str]


@dataclass(frozen=True)
class DataReport:
    """What was found in all splits, and the findings that should worry the user."""

    splits: list[SplitReport]
    overlaps: list[Overlap]
    max_length: int | None
    warnings: list[Note]
