"""The page of the command line: what `potstill --help` says, of every command."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

COLUMNS = 80
"""The width of a terminal that says nothing of its width."""
INTRODUCTION = """# Command line

What `potstill --help` and `potstill COMMAND --help` print.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "command-line.md", content=write_page()))
    return files


def write_page() -> str:
    """Return the page in Markdown: a section for the whole, and one for each command."""
    sections = [("potstill", ask_help([]))]
    sections += [(f"potstill {name}", ask_help([name])) for name in list_commands()]
    told = [f"## {title}\n\n```text\n{text}\n```\n" for title, text in sections]
    return "\n".join([INTRODUCTION, *told])


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
