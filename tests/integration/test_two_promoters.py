"""Two processes that promote at once, through a database alone and on PostgreSQL."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import mlflow
import pytest
from postgres import serve_postgres

from distill_tasks.config import TrackingConfig
from distill_tasks.tracking.store import check_tracking
from registry.aliases import MOVE, aliases_of
from registry.history import History
from registry.lease import LEASE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MODEL = "two words"
PROMOTER = Path(__file__).with_name("promoter.py")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/mlflow.db"
        return
    with serve_postgres() as address:
        yield address


@pytest.mark.parametrize("rounds", [25])
def test_two_promoters_leave_one_champion_and_one_chain_of_events(database, rounds):
    check_tracking(TrackingConfig(uri=database))
    client = mlflow.MlflowClient(database, database)
    client.create_registered_model(MODEL)
    command = [sys.executable, str(PROMOTER), database, MODEL, str(rounds)]
    promoters = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [promoter.communicate()[0] for promoter in promoters]
    assert [promoter.returncode for promoter in promoters] == [0, 0], said
    promoted = [event for event in History(client, MODEL).read() if event.kind == "promoted"]
    assert len(promoted) == 2 * rounds
    chain = [(event.before, event.version) for event in promoted]
    for (_, champion), (before, _) in pairwise(chain):
        assert before == champion, chain
    before, champion = chain[-1]
    assert aliases_of(client, MODEL) == {"champion": champion, "previous": before}
    tags = client.get_registered_model(MODEL).tags
    assert not [tag for tag in tags if tag == MOVE or tag.startswith(LEASE)]
