"""Label codes: what a language model answers instead of the name of a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, product
from string import ascii_lowercase, ascii_uppercase

from distill_tasks.core.errors import InputError

LETTERS = ascii_uppercase + ascii_lowercase
"""Codes that every tokenizer known holds as one token."""
NUMBERS = 1000
"""Numbers up to this are tried where letters do not suffice."""


def choose_codes(count: int, is_single: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """Return so many codes, each of which the model answers with a single token.

    ``is_single`` says whether a code is one token where the answer begins; without it, where the
    tokenizer is not at hand, there are the 52 letters. Raises InputError if there are too few.
    """
    suited = iter(LETTERS) if is_single is None else filter(is_single, _list_candidates())
    codes = tuple(islice(suited, count))
    if len(codes) < count:
        where = "without its tokenizer" if is_single is None else "to the model's tokenizer"
        raise InputError(
            f"{count:,} classes need as many codes of a single token, and {where} there are "
            f"{len(codes)}. Join classes, or use a teacher that gives probabilities itself."
        )
    return codes


def _list_candidates() -> Iterator[str]:
    """Yield codes, the easiest to tell apart first."""
    yield from ascii_uppercase
    yield from map("".join, product(ascii_uppercase, repeat=2))
    yield from map(str, range(NUMBERS))
