"""A process that registers versions and promotes each, comparing again where it came too late."""

import logging
import sys

import mlflow

from distill_tasks.results.review import GateReport
from registry.aliases import CHAMPION, Registered, aliases_of
from registry.gate import keep_gate
from registry.promote import ChampionChangedError, promote_version


def main(database: str, model: str, rounds: int) -> None:
    """Promote as many versions as there are rounds."""
    logging.disable(logging.INFO)
    client = mlflow.MlflowClient(database, database)
    for _ in range(rounds):
        made = client.create_model_version(model, source=f"file:///{model}")
        promote(client, Registered(model, int(made.version), reused=False))


def promote(client: mlflow.MlflowClient, version: Registered) -> None:
    """Let a version pass the gate against the champion that there is, until it is promoted."""
    while True:
        champion = aliases_of(client, version.model).get(CHAMPION)
        passed = GateReport(version.version, champion, f"against {champion}", True, "by hand")
        keep_gate(client, version, passed)
        try:
            promote_version(client, version, passed)
        except ChampionChangedError:
            continue
        return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
