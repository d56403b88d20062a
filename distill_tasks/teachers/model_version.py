"""Versions of models in an MLflow registry, at whatever address it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.environment import variables
from distill_tasks.core.errors import (
    InputError,
    did_you_mean,
    say_error,
    shortlist,
    stop_if_disk_full,
)
from distill_tasks.core.retries import RETRIES, shorten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.pyfunc import PyFuncModel

ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model, and where its files lie."""

    address: str
    location: str
    uri: str

    def read_id(self) -> str:
        """Return the id of the model in its file ``MLmodel``."""
        from mlflow.models import Model

        with self._fetch("/MLmodel") as file:
            return str(Model.load(str(file)).model_uuid)

    @contextmanager
    def load(self) -> Iterator[PyFuncModel]:
        """Load the model; its files are there inside the block."""
        import mlflow

        with self._fetch("") as folder:
            try:
                model = mlflow.pyfunc.load_model(str(folder))
            except Exception as error:  # noqa: BLE001  # whatever its flavour and code raise
                stop_if_disk_full(error)
                raise InputError(
                    f"{self.address} cannot be loaded: {mask_credentials(say_error(error))}. "
                    "Install what it needs, which its requirements.txt lists."
                ) from None
            yield model

    @contextmanager
    def _fetch(self, part: str) -> Iterator[Path]:
        """Yield the path of a part of its files, fetched into a temporary folder if need be."""
        from mlflow.artifacts import download_artifacts
        from mlflow.utils.uri import is_local_uri

        with TemporaryDirectory() as folder:
            try:
                path = download_artifacts(
                    artifact_uri=f"{self.location}{part}",
                    dst_path=None if is_local_uri(self.location) else folder,
                    tracking_uri=self.uri,
                    registry_uri=self.uri,
                )
            except Exception as error:  # noqa: BLE001  # each kind of storage has errors of its own
                stop_if_disk_full(error)
                raise InputError(
                    f"The files of {self.address} cannot be read: {shorten(error)}. Register it "
                    "again, or name another version."
                ) from None
            yield Path(path)


def find_version(address: str, uri: str) -> ModelVersion:
    """Return the version of a registered model that an address means now.

    Raises InputError if the registry cannot be reached, or has no such model, alias or version.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    written = ADDRESS.fullmatch(address)
    assert written is not None  # the pattern of the setting
    name, alias, version = written["name"], written["alias"], written["version"]
    try:
        client = MlflowClient(uri, uri)
        number = version or _find_alias(client, name, alias)
        location = client.get_model_version_download_uri(name, number)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise _refuse_absent(client, address, name) from None
        raise InputError(
            f"The registry of {address}, {mask_credentials(uri)}, cannot be reached: "
            f"{shorten(error)}. Start that server, or correct `uri`."
        ) from None
    return ModelVersion(address, location, uri)


def few_retries() -> AbstractContextManager[None]:
    """Return a block in which a registry that does not answer is given up soon."""
    return variables({RETRIES: "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"})


def _find_alias(client: MlflowClient, name: str, alias: str) -> str:
    return str(client.get_model_version_by_alias(name, alias).version)


def _refuse_absent(client: MlflowClient, address: str, name: str) -> InputError:
    """Return the error of an address that names no model, alias or version of the registry."""
    found = client.search_registered_models(f"name = '{name}'") if "'" not in name else []
    if not found:
        known = sorted(model.name for model in client.search_registered_models())
        near = did_you_mean(name, known)
        return InputError(
            f"{address}: no model is registered as {name!r}{near}. Registered are "
            f"{shortlist(known) or 'none'}."
        )
    versions = client.search_model_versions(f"name = '{name}'")
    numbers = sorted(int(one.version) for one in versions)
    aliases = sorted(found[0].aliases)
    wrong = address.removeprefix(f"models:/{name}")[1:]
    return InputError(
        f"{address}: {name} has no {wrong!r}{did_you_mean(wrong, aliases)}. It has the versions "
        f"{shortlist(numbers) or 'none'} and the aliases {shortlist(aliases) or 'none'}."
    )
