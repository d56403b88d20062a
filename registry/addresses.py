"""Addresses of models in the registry: `models:/NAME@alias` and `models:/NAME/version`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.config import TrackingConfig, load_config
from distill_tasks.core.errors import InputError, did_you_mean
from distill_tasks.tracking.store import open_checked
from registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, aliases_of, find_missing, get_model

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


def open_model(written: str, tracking_uri: str | None) -> tuple[MlflowClient, str]:
    """Return the client of MLflow and a registered model's name, from the name or a configuration.

    Raises InputError if there is no such file or model, or if MLflow cannot be reached.
    """
    is_file = written.endswith((".yaml", ".yml")) or Path(written).is_file()
    tracking, name = TrackingConfig(), written
    if is_file:
        settings = load_config(Path(written))
        tracking, name = settings.tracking, settings.registry.model
    if tracking_uri is not None:
        tracking = TrackingConfig(uri=tracking_uri)
    client = open_checked(tracking)
    get_model(client, name)
    return client, name
