"""Versions of a registered model and their aliases: challenger, champion, previous."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from distill_tasks.errors import InputError

CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS = "previous"
ROLLED_BACK = "potstill.rolled_back"
"""Tag of a version that a person took back: no nightly run may promote it again."""
VERDICT = "potstill.verdict"
"""Tag of a version with the verdict on its student against the same one without a teacher."""


@dataclass(frozen=True)
class Registered:
    """A model version of the registry."""

    model: str
    version: int
    reused: bool

    @property
    def uri(self) -> str:
        """The address that MLflow loads it by."""
        return f"models:/{self.model}/{self.version}"


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


def tags_of(client: MlflowClient, registered: Registered) -> dict[str, str]:
    """Return the tags of a version."""
    return dict(client.get_model_version(registered.model, str(registered.version)).tags)


def give_another_chance(client: MlflowClient, registered: Registered) -> None:
    """Forget that a version was rolled back."""
    if ROLLED_BACK in tags_of(client, registered):
        client.delete_model_version_tag(registered.model, str(registered.version), ROLLED_BACK)
