"""What the site takes from the repository: the README as its first page, and files linked to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
README = "README.md"
FOLDER = "repository"
"""Where files of the repository lie in the site."""
UPWARDS = re.compile(r"(?<=\]\()((?:\.\./)+)([\w][\w./-]*)")
"""A link that climbs: how far, and to which file."""
SECTION = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)
"""Stands for a section of the README, by its title."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the first page, and every file of the repository that a page links to."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "index.md", content=read_readme()))
    linked = {
        path
        for page in files.documentation_pages()
        for path in find_outside(fill_in(page.content_string, page.src_uri), page.src_uri)
    }
    for path in sorted(linked - {README}):
        source = ROOT / path
        if not source.is_file():
            raise FileNotFoundError(f"A page links to {path}, which is not in the repository.")
        files.append(File.generated(config, name_copy(path), content=source.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in sections of the README, and point links out of `docs` to copies in the site."""
    markdown = fill_in(markdown, page.file.src_uri)
    for path, link in find_outside(markdown, page.file.src_uri).items():
        copy = "../" * page.file.src_uri.count("/") + name_copy(path)
        markdown = markdown.replace(f"]({link}", f"]({copy}")
    return markdown


def read_readme() -> str:
    """Return the README with its links as they are seen from `docs`."""
    text = (ROOT / README).read_text(encoding="utf-8")
    links = re.compile(r"(?<=\]\()(?!https?:|#)")
    return links.sub("../", text).replace("](../docs/", "](")


def fill_in(markdown: str, page: str) -> str:
    """Return a page with the sections of the README that it asks for, without their titles."""
    up, readme = "../" * (page.count("/") + 1), (ROOT / README).read_text(encoding="utf-8")

    def find(asked: re.Match[str]) -> str:
        _, _, rest = readme.partition(f"### {asked[1]}\n")
        section = re.split(r"^##+ ", rest, maxsplit=1, flags=re.MULTILINE)[0].strip()
        return re.sub(r"(?<=\]\()(?!https?:|#)", up, section)

    return SECTION.sub(find, markdown)


def find_outside(markdown: str, page: str) -> dict[str, str]:
    """Return the files outside `docs` that a page links to, each with the link as it is written."""
    depth = page.count("/")
    return {
        path: f"{up}{path}" for up, path in UPWARDS.findall(markdown) if up.count("../") > depth
    }


def name_copy(path: str) -> str:
    """Return where a file of the repository lies in the site, as plain text but for the README."""
    return "index.md" if path == README else f"{FOLDER}/{path.replace('/', '-')}.txt"
