"""The generated part of the page of the command line: what `--help` prints, of every command."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PAGE = "command_line.md"
COLUMNS = 80
"""The width of a terminal that says nothing of its width."""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add what every command prints to the page that tells of exit codes."""
    return f"{markdown}\n{write_sections()}" if page.file.src_uri == PAGE else markdown


def write_sections() -> str:
    """Return a section in Markdown for the whole, and one for each command."""
    sections = [("potstill", ask_help([]))]
    sections += [(f"potstill {name}", ask_help([name])) for name in list_commands()]
    return "\n".join(f"## {title}\n\n```text\n{text}\n```\n" for title, text in sections)


def list_commands() -> list[str]:
    """Return the names of the commands, in the order in which they are defined."""
    from flows.cli import app

    return [name for name in app if not name.startswith("-")]


def ask_help(command: list[str]) -> str:
    """Return what the help of a command prints on a terminal 80 columns wide."""
    from flows.cli import app

    shown = io.StringIO()
    app.help_print(command, console=Console(file=shown, width=COLUMNS))
    return "\n".join(line.rstrip() for line in shown.getvalue().strip().splitlines())
