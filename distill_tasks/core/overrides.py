"""Overrides: single settings set anew in plain data, before it is validated and grids expand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distill_tasks.core.credentials import refuse_credentials
from distill_tasks.core.errors import InputError
from distill_tasks.core.yaml_file import parse_yaml

LONGEST_FOUND = 80
"""How many characters of a value in the way a message shows."""


def override(written: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data with some of its values replaced, each by its dotted key.

    In ``students.0.layers`` the number is a place in a list. A key that is not there yet is added:
    whether it is one, validation says. The shorter key is set first, so ``loss`` and ``loss.alpha``
    go together. Raises InputError for a key that leads nowhere; ``written`` stays as it was.
    """
    data: Any = dict(written)
    for key in sorted(overrides, key=lambda key: key.count(".")):
        parts = key.split(".")
        if not all(parts):
            raise InputError(f"Override `{key}`: a part of the key is empty. Write it as a.b.0.c.")
        data = _replace(data, parts, 0, overrides[key])
    return dict(data)


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Return the overrides of texts such as ``loss.alpha=0.5``; values are read as YAML.

    Raises InputError for a text without ``=``, a value that is no YAML, and a key set twice.
    """
    overrides: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise InputError(f"--set {text!r} names no value. Write key=value, as loss.alpha=0.5.")
        if key in overrides:
            raise InputError(f"--set {key} stands there twice. Keep one of them.")
        overrides[key] = parse_yaml(value, f"--set {key}")
    return refuse_secrets(overrides)


def refuse_secrets(overrides: dict[str, Any]) -> dict[str, Any]:
    """Return overrides; raise InputError if one is a password or a token, as Prefect keeps them."""
    for key, value in overrides.items():
        refuse_credentials(_replace(None, key.split("."), 0, value))
    return overrides


def _replace(node: Any, parts: list[str], depth: int, value: Any) -> Any:
    """Return plain data with the value at a key replaced, copied on the way to it alone."""
    if depth == len(parts):
        return value
    part = parts[depth]
    if node is None or isinstance(node, dict):
        inner = node or {}
        return {**inner, part: _replace(inner.get(part), parts, depth + 1, value)}
    key, here = ".".join(parts), ".".join(parts[:depth])
    if not isinstance(node, list | tuple):
        raise InputError(
            f"Override `{key}`: `{here}` is {node!r:.{LONGEST_FOUND}}, which has nothing inside. "
            f"Set `{here}` itself."
        )
    if not (part.isdecimal() and int(part) < len(node)):
        allowed = f"0 to {len(node) - 1}" if node else "none, the list is empty"
        raise InputError(
            f"Override `{key}`: no item {part!r} in the list `{here}`. Allowed: {allowed}; or set "
            f"`{here}` itself."
        )
    place = int(part)
    return [*node[:place], _replace(node[place], parts, depth + 1, value), *node[place + 1 :]]
