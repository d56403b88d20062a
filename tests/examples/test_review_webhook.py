import threading
import time
import urllib.error
import urllib.request

import mlflow
import pytest
from mlflow_server import serve_mlflow
from review_webhook import is_decision, is_signed, make_server

SECRET = "correct horse battery"
REACHABLE = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
}
"""Our receiver has no certificate and no public address."""


@pytest.fixture
def receiver():
    """A receiver on a free port, and how often it started what it is there to start."""
    started = []
    server = make_server(0, SECRET, lambda: started.append(time.monotonic()))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", started
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_tag_set_in_mlflow_starts_the_promotion_and_no_other_tag_does(receiver, tmp_path):
    url, started = receiver
    with serve_mlflow(tmp_path, environment=REACHABLE) as address:
        client = mlflow.MlflowClient(address, address)
        client.create_webhook("review", url, ["model_version_tag.set"], secret=SECRET)
        client.create_registered_model("tickets")
        client.create_model_version("tickets", "s3://models/tickets")
        for key, word in (("note", "approved"), ("review", "pending"), ("review", " Approved")):
            client.set_model_version_tag("tickets", "1", key, word)
        deadline = time.monotonic() + 30
        while not started and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)  # what else was sent has arrived
    assert len(started) == 1


def test_a_message_without_the_secret_is_refused(receiver):
    url, started = receiver
    request = urllib.request.Request(url, data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request)
    assert started == []


def test_an_old_message_is_refused_though_it_is_signed():
    headers = {"X-MLflow-Delivery-Id": "1", "X-MLflow-Timestamp": "1000", "X-MLflow-Signature": ""}
    assert not is_signed(SECRET, headers, b"{}")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"action": "set", "data": {"key": "review", "value": "rejected"}}, True),
        ({"action": "set", "data": {"key": "review", "value": "yes"}}, False),
        ({"action": "deleted", "data": {"key": "review", "value": "approved"}}, False),
        ({}, False),
    ],
)
def test_only_decisions_start_anything(message, expected):
    assert is_decision({"entity": "model_version_tag"} | message) is expected
