"""`potstill export`: copies a registered version to a folder, and to a hub if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from distill_tasks.core.errors import InputError
from flows.commands.options import TrackingUri
from flows.printing import out


def export(
    name: Annotated[str, Parameter(help="Registered model's name, or models:/NAME@ALIAS.")],
    folder: Annotated[Path, Parameter(help="A folder that is not there yet.")],
    *,
    version: Annotated[
        str, Parameter(help="Alias or number of the version, if NAME does not say it.")
    ] = "champion",
    push: Annotated[
        str | None,
        Parameter(help="Repository of the hub, as ORG/NAME; the token is HF_TOKEN."),
    ] = None,
    public: Annotated[bool, Parameter(help="Make a new repository public.", negative="")] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Copy a champion with its code, requirements and card (README.md) to a folder.

    The folder answers without MLflow and without Potstill.

    Example: potstill export tickets champion --push acme/tickets
    """
    from distill_tasks.config import TrackingConfig
    from distill_tasks.tracking.store import check_tracking, open_store

    name, version = _split(name, version)
    tracking = TrackingConfig.at(tracking_uri)
    check_tracking(tracking)
    from registry.export import check_push, export_version, push_folder

    if push is not None:
        check_push(push)
    exported = export_version(open_store(tracking), name, version, folder)
    out.say(f"Version {exported.version} of {exported.model} lies in {folder}.")
    out.say(f'Try it: python {folder}/served_model.py {folder} "some text"')
    if push is not None:
        out.say(f"Pushed to {push_folder(folder, push, private=not public)}")


def _split(name: str, version: str) -> tuple[str, str]:
    """Return name and version of a models:/ address, or of the two written apart."""
    if not name.startswith("models:/"):
        return name, version
    model, mark, alias = name.removeprefix("models:/").partition("@")
    if not mark:
        model, _, alias = model.rpartition("/")
    if not (model and alias):
        raise InputError(f"{name} names no version. Give models:/NAME@ALIAS or models:/NAME/1.")
    return model, alias
