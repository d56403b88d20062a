"""The terminal: whatever is written there is text, in characters that it has."""

from __future__ import annotations

import codecs
import io
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from distill_tasks.core.markup import as_terminal

PLAIN = {"–": "-", "−": "-", "×": "x", "…": "...", "→": "->", "≥": ">=", "·": "*", "α": "alpha"}
"""What our own sentences hold beside ASCII, in ASCII."""


class Terminal(Console):
    """A console that takes every string for text: no markup, no emoji, no control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a string as it is shown, in lines and in the cells of tables alike."""
        return super().render_str(as_terminal(text), **settings)


def degrade_characters(*streams: TextIO) -> None:
    """Have streams write what their encoding lacks in ASCII, where they would have raised."""
    codecs.register_error("plain", _write_plain)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _write_plain(error: UnicodeError) -> tuple[str, int]:
    """Return the characters of an encoding error in ASCII, a name of ours or Python's escape."""
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(character) or ascii(character)[1:-1] for character in lost), error.end
