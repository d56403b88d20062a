"""Filling the templates of the HTML pages, in which whatever is filled in is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def fill_template(name: str, values: Mapping[str, object]) -> str:
    """Return a page; raise jinja2's UndefinedError for a value that is missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name).render(values)
