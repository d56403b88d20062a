"""The aliases of a registered model: challenger, champion, previous."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from distill_tasks.errors import InputError

CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS = "previous"


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the version of each alias of a registered model.

    Raises InputError if there is no such model.
    """
    try:
        found = client.get_registered_model(name).aliases
    except MlflowException:
        raise InputError(
            f"There is no registered model {name!r}. Run `potstill run` first, or correct the name."
        ) from None
    return {alias: int(version) for alias, version in found.items()}
