"""Escaping of text that users wrote: one function for each language in which it is shown."""

from __future__ import annotations

import html
import re

_CONTROLS = dict.fromkeys(range(0x80, 0xA0), 0xFFFD) | {0x7F: 0x2421}
_CONTROLS |= {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"}

_ENTITIES = (
    r"^\s+|\s+\Z|[<@\n\r]|&(?=[#\w])"
    r"|:(?=//|[\w+-]+:)"  # addresses, emoji
)
_ESCAPED = (
    r"[\\`*~|#]"
    r"|(?<!\w)_+|_+(?!\w)"  # inside a word it is no emphasis
    r"|^[>=\[]|^[-+](?![\w.])|^\d{1,9}[.)](?=\s|\Z)"  # quotes, definitions, rules, lists
    r"|\](?=\s*[(\[])"  # links and images
    r"|(?<=www)\."
)
_MARKDOWN = re.compile(f"({_ENTITIES})|{_ESCAPED}", re.IGNORECASE)
_FORMULA = re.compile(r"'*\s*[=+\-@\t\r]")


def as_visible(text: str) -> str:
    """Return text with its control characters replaced by visible symbols."""
    return text.translate(_CONTROLS)


def as_terminal(text: str) -> str:
    """Return text that neither moves the cursor nor sets colours in a terminal."""
    return as_visible(text).replace("\r", "␍")


def as_markdown(text: str) -> str:
    """Return markdown that shows a text literally: no link, image, tag, emphasis, list or cell.

    It works in CommonMark and in the Markdown of MLflow's pages (Showdown) and of Prefect's
    (marked). Characters that are no markup where they stand are not escaped, as in `max_disk_mb`.
    """

    def disarm(found: re.Match[str]) -> str:
        if found[1]:
            return "".join("&lt;" if c == "<" else f"&#{ord(c)};" for c in found[1])
        return re.sub(r"[\W_]", r"\\\g<0>", found[0])

    return _MARKDOWN.sub(disarm, as_visible(text))


def as_label(text: str) -> str:
    """Return a label that plotly, whose labels may contain HTML tags, shows literally."""
    return html.escape(as_visible(text), quote=False)


def as_cell(text: str) -> str:
    """Return the cell of a CSV that a spreadsheet shows, where it would run text as a formula.

    An apostrophe is put before it, also before one that `from_cell` would take away. Source: OWASP,
    "CSV Injection".
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """Return the text that `as_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
