"""The terminal: everything is written to it as plain text, in characters of its encoding."""

from __future__ import annotations

import codecs
import io
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from distill_tasks.core.markup import as_terminal

PLAIN = {"–": "-", "−": "-", "×": "x", "…": "...", "→": "->", "≥": ">=", "·": "*", "α": "alpha"}
"""ASCII replacements of the other characters that our own messages contain."""


class Terminal(Console):
    """A console that shows every string as plain text: no markup, emoji or control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a string as it is shown, in lines and in table cells."""
        return super().render_str(as_terminal(text), **settings)


def degrade_characters(*streams: TextIO) -> None:
    """Make streams write characters that their encoding lacks in ASCII instead of raising."""
    codecs.register_error("plain", _write_plain)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _write_plain(error: UnicodeError) -> tuple[str, int]:
    """Return the characters of an encoding error in ASCII: our replacement or Python's escape."""
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(character) or ascii(character)[1:-1] for character in lost), error.end
