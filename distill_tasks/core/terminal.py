"""The terminal: everything is written to it as plain text, in characters of its encoding."""

from __future__ import annotations

import codecs
import io
import re
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from distill_tasks.core.markup import as_terminal

PLAIN = {"–": "-", "−": "-", "×": "x", "…": "...", "→": "->", "≥": ">=", "·": "*", "α": "alpha"}
"""ASCII replacements of the other characters that our own messages contain."""
Cells = dict[str, str]
"""The cells of one row of a table, by the titles of the columns."""
FILE_WIDTH = 160
"""Columns of a table that is written to a file or a pipe, which break no lines."""
SEPARATOR = 3
"""Columns between two cells: a line, and a space on either side."""
NO_BREAK = "\u00a0"
UNIT = re.compile(r"(?<=\d) (?=%|ms\b|MB\b|points\b)")
"""Spaces between a number and its unit, at which no line is broken."""
NARROWEST_NAME = 24
"""Columns that a table leaves to the names of its rows, which are folded if they are longer."""


class Terminal(Console):
    """A console that shows every string as plain text: no markup, emoji or control characters.

    Lines are broken between words in a terminal, and not at all in a file or a pipe.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a string as it is shown, in lines and in table cells."""
        return super().render_str(as_terminal(text), **settings)

    def say(self, text: str, *, name: str = "", style: str | None = None) -> None:
        """Print a line, behind a name in bold if there is one; words, as addresses, stay whole."""
        named = f"{name}: {text}" if name else text
        lines = as_terminal(named).splitlines() or [""]
        if self.is_terminal:
            lines = [part for line in lines for part in _break(line, self.width)]
        shown = Text("\n".join(lines), style=style or "")
        shown.stylize("bold", 0, len(as_terminal(name)))
        self.print(shown, soft_wrap=True)

    def show_table(
        self, title: str, rows: Sequence[Cells], *, last: Sequence[str] = (), chosen: str = ""
    ) -> list[str]:
        """Print rows of cells by their titles, and return the titles that had no room.

        Of those in ``last`` the first one gives way first. The first column holds the names of the
        rows; the chosen one is marked.
        """
        width = self.width if self.is_terminal else max(self.width, FILE_WIDTH)
        for given_up in range(len(last) + 1):
            left_out = list(last[:given_up])
            titles = [title for title in rows[0] if title not in left_out]
            widths = _measure_columns(titles, rows, width)
            if widths is not None or given_up == len(last):
                break
        table = Table(title=as_terminal(title))
        for column, column_width in (widths or dict.fromkeys(titles)).items():
            first = column == titles[0]
            justify: JustifyMethod = "left" if first else "right"
            table.add_column(column, overflow="fold", justify=justify, width=column_width)
        for row in rows:
            style = "bold yellow" if row[titles[0]] == chosen else None
            table.add_row(*(row[each] for each in titles), style=style)
        wide = self if self.is_terminal else Terminal(file=self.file, width=width)
        wide.print(table)
        return left_out


def _measure_columns(
    titles: Sequence[str], rows: Sequence[Cells], width: int
) -> dict[str, int] | None:
    """Return the width of each column; None where the terminal has no room for them.

    No cell is cut and no word of a title, but for the names in the first column.
    """
    name, *figures = titles
    widths = {
        figure: max(len(cell) for cell in (*figure.split(), *(row[figure] for row in rows)))
        for figure in figures
    }
    longest = max(len(cell) for cell in (name, *(row[name] for row in rows)))
    room = width - 1 - SEPARATOR - sum(SEPARATOR + needed for needed in widths.values())
    return None if room < min(longest, NARROWEST_NAME) else {name: min(longest, room)} | widths


def _break(line: str, width: int) -> list[str]:
    """Return a line broken between words, the further lines two characters further right."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    parts = textwrap.wrap(
        UNIT.sub(NO_BREAK, line),
        width,
        subsequent_indent=indent if line.startswith(" ") else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [part.replace(NO_BREAK, " ") for part in parts] or [""]


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
