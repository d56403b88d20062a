"""Credentials: a configuration is kept in records and logs, so it may not contain any."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from distill_tasks.core.errors import InputError

ADVICE = (
    "A configuration is kept in records and logs. Take it out: MLflow reads "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD from the environment, PostgreSQL "
    "PGPASSWORD or ~/.pgpass, the hub HF_TOKEN; a Prefect worker sets them from Secret blocks."
)

_NAMES = r"(?:[\w-]*[_-])?(?:password|passwd|pwd|token|secret|api_?key|access_?key|signature)"
_KEY = re.compile(_NAMES, re.IGNORECASE)
_IN_TEXT = re.compile(
    r"(https?://)[^\s/?#]+(?=@)"  # a token may stand where the user does
    r"|(://[^\s/?#@:]*:)(?:[^\s/?#]+|(?!\d+[/?#])\S+)(?=@)"  # quoted, and as it should not be
    rf"|([?&;](?:{_NAMES}|sig)=)[^\s&;]+"
    r"|(?:\b|(?<=\\[nrt]))(?:hf_|gh[opsu]_|sk-(?:proj-)?|pn[ub]_)[a-z\d]{20,}|\bgithub_pat_\w{20,}",
    re.IGNORECASE,
)
"""Passwords in addresses and connection strings, and tokens of well-known form."""


def refuse_credentials(written: Any) -> None:
    """Raise InputError if plain data holds a password or a token; the error does not repeat it."""
    for keys, text in _list_texts(written):
        key = keys[-1] if keys else ""
        if _KEY.fullmatch(key) or _IN_TEXT.search(unquote_plus(text)):
            where = mask_credentials(".".join(keys))
            raise InputError(f"`{where}` holds a password or a token. {ADVICE}")


def mask_credentials(text: str) -> str:
    """Return a text, such as a library's error, with the credentials in its addresses masked."""
    return _IN_TEXT.sub(lambda found: f"{''.join(filter(None, found.groups()))}***", text)


def _list_texts(written: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return every key and text of plain data, each with the keys that lead to it.

    Data that contains itself, which YAML allows, is visited once.
    """
    waiting: list[tuple[tuple[str, ...], Any]] = [((), written)]
    seen: set[int] = set()
    while waiting:
        keys, node = waiting.pop()
        if isinstance(node, str):
            yield keys, node
        elif isinstance(node, dict | list | tuple) and id(node) not in seen:
            seen.add(id(node))
            pairs = node.items() if isinstance(node, dict) else enumerate(node)
            waiting += [((*keys, str(key)), part) for key, value in pairs for part in (key, value)]
