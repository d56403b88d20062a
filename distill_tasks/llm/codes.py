"""Label codes: what a language model answers instead of the name of a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, product
from string import ascii_lowercase, ascii_uppercase

from distill_tasks.core.errors import InputError

LETTERS = ascii_uppercase + ascii_lowercase
"""Codes that every tokenizer known holds as one token."""
NUMBERS = 1000
"""Numbers below this are tried where letters do not suffice."""
MOST_CODES = 900
"""Numbers of three digits; longer ones are single tokens of no model."""


def choose_codes(count: int, is_single: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """Return so many codes, each of which the model answers with a single token.

    ``is_single`` says whether a code is one token where the answer begins; without it, where the
    tokenizer is not at hand, see `choose_unseen`. Raises InputError if there are too few.
    """
    if is_single is None:
        return choose_unseen(count)
    codes = tuple(islice(filter(is_single, _list_candidates()), count))
    if len(codes) < count:
        raise InputError(
            f"{count:,} classes need as many codes of a single token, and to the model's tokenizer "
            f"there are {len(codes)}. Join classes, or use a teacher that gives probabilities "
            "itself."
        )
    return codes


def choose_unseen(count: int) -> tuple[str, ...]:
    """Return so many codes for a model whose tokenizer is not at hand: letters, else numbers.

    All numbers have as many digits. So a tokenizer that parts them never begins an answer with a
    code, and log-probabilities of a first token are seen to be of no use; votes still are.
    Raises InputError if there are too few.
    """
    if count <= len(LETTERS):
        return tuple(LETTERS[:count])
    if count > MOST_CODES:
        raise InputError(
            f"A language model tells at most {MOST_CODES} classes apart by their codes; the data "
            f"has {count:,}. Join classes, or use saved answers."
        )
    first = 10 if count <= 90 else 100
    return tuple(str(number) for number in range(first, first + count))


def _list_candidates() -> Iterator[str]:
    """Yield codes, the easiest to tell apart first."""
    yield from ascii_uppercase
    yield from map("".join, product(ascii_uppercase, repeat=2))
    yield from map(str, range(NUMBERS))
