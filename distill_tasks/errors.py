"""The errors a user can meet, each one or two lines that say what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PotstillError(Exception):
    """A run that failed for a reason its user can read; exit code 1."""

    exit_code = 1


class InputError(PotstillError):
    """Wrong input: what was found, what is allowed, what to do; exit code 2."""

    exit_code = 2


class NothingQualifiesError(PotstillError):
    """No candidate meets the constraints, so nothing may be promoted; exit code 1."""


class DivergedError(PotstillError):
    """A training whose loss is no number any more; exit code 1 where it is the teacher's."""


def say_error(error: Exception) -> str:
    """Return an error of any kind in one line."""
    kind = "" if isinstance(error, PotstillError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())[:200]}"


def did_you_mean(word: str, allowed: Iterable[object]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest allowed word, or an empty string."""
    close = difflib.get_close_matches(word, [str(item) for item in allowed], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shortlist(items: Iterable[object], most: int = 5) -> str:
    """Return the first few items joined by commas, with the number of those left out."""
    words = [str(item) for item in items]
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest} more" if rest > 0 else "")
