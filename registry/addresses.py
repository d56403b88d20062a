"""Addresses of models in the registry: `models:/NAME@alias` and `models:/NAME/version`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from distill_tasks.core.errors import InputError, did_you_mean
from registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, aliases_of, find_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")


def find_absent(client: MlflowClient, address: str) -> str | None:
    """Return in words that no version has the alias of an address; None where there may be one.

    Raises InputError for a model that is not registered, and for an alias that none of ours is.
    """
    written = ADDRESS.fullmatch(address)
    if written is None:  # a version or a model id, which opening it will tell
        return None
    name, alias = written["name"], written["alias"]
    aliases = aliases_of(client, name)
    if alias in aliases:
        return None
    ours = (CHAMPION, CHALLENGER, PREVIOUS)
    if alias in ours:
        return find_missing(client, name, alias)
    known = sorted({*aliases, *ours})
    raise InputError(
        f"{name} has no alias {alias!r}{did_you_mean(alias, known)}. It has "
        f"{', '.join(sorted(aliases)) or 'none'}."
    )
