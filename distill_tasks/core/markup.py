"""What users write is text, never markup: one function for each language that it is shown in."""

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


def as_visible(text: str) -> str:
    """Return text whose control characters are pictures of themselves, so that none is obeyed."""
    return text.translate(_CONTROLS)


def as_terminal(text: str) -> str:
    """Return text that moves no cursor and sets no colour; `Terminal` shows its brackets too."""
    return as_visible(text).replace("\r", "␍")


def as_markdown(text: str) -> str:
    """Return markdown that shows a text as it is: no link, image, tag, emphasis, list or cell.

    It holds for CommonMark, for the Markdown of MLflow's pages (Showdown) and of Prefect's
    (marked). What is no markup where it stands, as `max_disk_mb` or `[1, 2]`, stays readable.
    """

    def disarm(found: re.Match[str]) -> str:
        if found[1]:
            return "".join("&lt;" if c == "<" else f"&#{ord(c)};" for c in found[1])
        return re.sub(r"[\W_]", r"\\\g<0>", found[0])

    return _MARKDOWN.sub(disarm, as_visible(text))


def as_label(text: str) -> str:
    """Return what plotly, whose labels are a small HTML, shows as the text it is."""
    return html.escape(as_visible(text), quote=False)
