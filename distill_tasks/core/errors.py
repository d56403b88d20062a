"""The errors that users see, each one or two lines that say what to do."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


class PotstillError(Exception):
    """A run failed for a reason that the message explains; exit code 1."""

    exit_code = 1


class InputError(PotstillError):
    """The input is wrong: what was found, what is allowed, what to do; exit code 2."""

    exit_code = 2


class NothingQualifiesError(PotstillError):
    """No candidate meets the constraints, so nothing may be promoted; exit code 1."""

    def __init__(self, reason: str, outcome: object = None) -> None:
        super().__init__(reason)
        self.outcome = outcome
        """What the run found all the same, where it came so far."""


class WeakTeacherError(PotstillError):
    """A teacher no better than words on gold, or less accurate than asked for; exit code 1."""


class DivergedError(PotstillError):
    """A training's loss became NaN or infinite; exit code 1 if it is the teacher's training."""


class DiskFullError(PotstillError):
    """A disk, its inodes or a quota are used up, so that nothing more can be saved."""


FULL = re.compile(
    r"no space left on device|disk quota exceeded|database or disk is full"
    r"|PytorchStreamWriter failed|^\d+ requested and \d+ written",  # from torch, from numpy
    re.IGNORECASE,
)
"""Messages by which libraries report a full disk in errors of their own types."""


def stop_if_disk_full(error: BaseException) -> None:
    """Raise DiskFullError if an error, or any error that caused it, reports a full disk."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, DiskFullError):
        full = isinstance(found, OSError) and found.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or FULL.search(str(found)):
            where = getattr(found, "filename", None)
            raise DiskFullError(
                f"The disk is full{f', writing {where}' if where else ''}: {say_error(found)}. "
                "Free some room (or inodes); the same command goes on from here."
            ) from None
        found = found.__cause__ or found.__context__
    if found is not None:
        raise found


def say_error(error: BaseException) -> str:
    """Return an error of any type as one line."""
    kind = "" if isinstance(error, PotstillError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())[:200]}"


def say_reason(error: Exception) -> str:
    """Return the first line of a library's error, to be quoted inside one of our messages."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(" .:")


def did_you_mean(word: str, allowed: Iterable[object]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest allowed word, or an empty string."""
    close = difflib.get_close_matches(word, [str(item) for item in allowed], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shortlist(items: Iterable[object], most: int = 5) -> str:
    """Return the first few items joined by commas, and how many more there are."""
    words = [str(item) for item in items]
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest} more" if rest > 0 else "")
