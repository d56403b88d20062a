"""Against a real Prefect server, whose notifications a real listener receives."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml
from mlflow_server import find_port, wait_until_up
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from distill_tasks.core.errors import InputError
from flows.automations import Change, apply_notices, list_notices
from flows.commands.automations import automations

CALLED, TOLD = "webhook/potstill-called", "custom-webhook/potstill-told"
PATIENCE_S = 60
FAILED, REFUSED, WAITS, SILENT = (notice.name for notice in list_notices())


class Inbox(HTTPServer):
    """Keeps what it is sent."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.received = []

    def wait_for(self, part):
        """Return the first message with a text in it that is there, or comes."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for message in self.received:
                if part in message:
                    return message
            time.sleep(0.1)
        raise AssertionError(f"{part!r} never came, but {self.received}")


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.received.append(self.rfile.read(int(self.headers["content-length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def inbox():
    with Inbox() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory, prefect_home):
    """The environment of processes that talk to a server of its own."""
    home, port = prefect_home(tmp_path_factory.mktemp("prefect")), find_port()
    known = {key: one for key, one in os.environ.items() if not key.startswith("PREFECT_")}
    mine = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
    log, api = home / "server.log", f"http://127.0.0.1:{port}/api"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=known | mine, stdout=output, stderr=output)
    try:
        wait_until_up(process, f"{api}/health", log)
        yield known | mine | {"PREFECT_API_URL": api, "DO_NOT_TRACK": "1"}
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def blocks(server, inbox):
    """A block that is called and one that notifies, on the server that this process talks to."""
    with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}):
        Webhook(url=inbox.url).save(CALLED.partition("/")[2])
        told = {"subject": "{{subject}}", "body": "{{body}}"}
        CustomWebhookNotificationBlock(name="t", url=inbox.url, json_data=told).save(
            TOLD.partition("/")[2]
        )
        yield


@pytest.fixture
def _clean(request):
    request.getfixturevalue("blocks")
    with get_client(sync_client=True) as client:
        for one in client.read_automations():
            client.delete_automation(one.id)


def read_automations():
    with get_client(sync_client=True) as client:
        return {one.name: one for one in client.read_automations()}


@pytest.mark.usefixtures("_clean")
def test_applying_twice_creates_each_once_and_changes_nothing_then():
    assert set(apply_notices(list_notices(), TOLD).values()) == {Change.CREATED}
    made = read_automations()
    assert set(made) == {FAILED, REFUSED, WAITS, SILENT}
    assert set(apply_notices(list_notices(), TOLD).values()) == {Change.KEPT}
    assert {name: one.id for name, one in read_automations().items()} == {
        name: one.id for name, one in made.items()
    }
    assert made[SILENT].trigger.within == timedelta(hours=26)


@pytest.mark.usefixtures("_clean")
def test_another_block_updates_them_and_one_that_a_person_disabled_stays_so():
    apply_notices(list_notices(), TOLD)
    with get_client(sync_client=True) as client:
        client.pause_automation(read_automations()[REFUSED].id)
    assert set(apply_notices(list_notices(), CALLED).values()) == {Change.UPDATED}
    found = read_automations()
    assert len(found) == 4
    assert {one.actions[0].type for one in found.values()} == {"call-webhook"}
    assert {name for name, one in found.items() if not one.enabled} == {REFUSED}


@pytest.mark.usefixtures("_clean")
def test_what_the_registry_decides_is_told_in_words(server, inbox, empty_mlflow, tmp_path):
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    apply_notices(list_notices(), CALLED)
    inbox.received.clear()
    time.sleep(SETTLED_S)
    reason = 'no better: "<b>" \\ of class x'
    say = [sys.executable, "-c", DECIDE, f"sqlite:///{tmp_path}/mlflow.db", reason]
    subprocess.run(say, env=server, check=True)
    refused = json.loads(inbox.wait_for("did not pass the gate"))
    assert refused["subject"] == "Potstill: version 3 of mine did not pass the gate"
    assert refused["body"] == reason
    waits = json.loads(inbox.wait_for("waits for a review"))
    assert "potstill review mine --version 4 --approve" in waits["body"]
    assert len(inbox.received) == 2  # a gate that passed is nobody's trouble


SETTLED_S = 1.0
"""How long the server takes at most to heed an automation that was written."""
DECIDE = """
import sys
from prefect.events.worker import EventsWorker
from mlflow import MlflowClient
from registry.history import Event, History

history = History(MlflowClient(sys.argv[1]), "mine")
history.append(Event("gate inconclusive", 3, sys.argv[2]))
history.append(Event("gate passed", 4, "it wins"))
history.append(Event("review pending", 4, "it wins"))
EventsWorker.drain_all()
"""


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("block", "said"),
    [("ops", "is no type and name of a block"), ("slack-webhook/ops", "has no block")],
)
def test_a_block_that_is_not_there_is_refused(block, said):
    with pytest.raises(InputError, match=said):
        apply_notices(list_notices(), block)


def test_the_command_lists_and_changes_nothing_until_it_is_told_to(capsys):
    listed = automations()
    assert [one.name for one in listed.automations] == [FAILED, REFUSED, WAITS, SILENT]
    assert (listed.applied, {one.change for one in listed.automations}) == (False, {Change.NONE})
    assert "A version did not pass the gate" in capsys.readouterr().out
    with pytest.raises(InputError, match="Name the block"):
        automations(apply=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_clean")
def test_runs_that_fail_wait_or_do_not_come_are_told(server, inbox, quick, tmp_path):
    apply_notices(list_notices(silence=timedelta(seconds=20)), TOLD)
    inbox.received.clear()
    time.sleep(SETTLED_S)
    weak = quick | {"evaluate": {"min_teacher_accuracy": 0.9999}}
    assert run(weak, server, tmp_path / "weak.yaml").returncode == 1
    failed = json.loads(inbox.wait_for("distill of animals ended as Failed"))
    assert "WeakTeacherError" in failed["body"]
    reviewed = quick | {"registry": quick["registry"] | {"promote": "review"}}
    done = run(reviewed, server, tmp_path / "reviewed.yaml")
    assert done.returncode == 0, done.stderr
    inbox.wait_for("version 1 of animals waits for a review")
    inbox.wait_for("no run of nightly completed for 0.00555556 hours")
    assert len([one for one in inbox.received if "ended as Failed" in one]) == 1


def run(settings, environment, path):
    path.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "flows.cli", "run", str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)
