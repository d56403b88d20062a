import os
import time

import mlflow
import pytest
from broken_server import broken_server

from distill_tasks.config import TrackingConfig
from distill_tasks.core.retries import RETRIES, limit_retries, say_unanswered
from distill_tasks.tracking.runs import tracked
from distill_tasks.tracking.store import check_tracking, connect


def test_a_server_that_breaks_later_is_asked_again_aloud_and_given_up(judged, monkeypatch, caplog):
    monkeypatch.setenv(RETRIES, "2")
    before, start = mlflow.get_tracking_uri(), time.monotonic()
    try:
        with broken_server(finds_experiments=True) as uri:
            config = judged.config.model_copy(update={"tracking": TrackingConfig(uri=uri)})
            check_tracking(config.tracking)
            with pytest.raises(mlflow.MlflowException) as caught, tracked(config, judged.rows):
                pass
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(before)
    assert 4 < time.monotonic() - start < 30  # MLflow waits 4 s before the second
    lines = [record.getMessage() for record in caplog.records if record.name == "potstill"]
    assert lines == [f"MLflow: answered 500; retry {number} of 2" for number in (1, 2)]
    assert say_unanswered(caught.value) == (
        f"MLflow gave up: API request to {uri}/api/2.0/mlflow/runs/search failed: "
        "ResponseError('too many 500 error responses'). Look after that server; the same command "
        "then goes on from here."
    )


def test_retries_outlast_two_minutes_unless_the_environment_says_otherwise(config, monkeypatch):
    from mlflow.utils.request_utils import JitteredRetry

    monkeypatch.delenv(RETRIES, raising=False)
    connect(config.tracking)
    retry, waits = JitteredRetry(int(os.environ[RETRIES]), backoff_factor=2), []
    while retry.total:
        retry = retry.increment("GET", "/", error=ConnectionError("refused"))
        waits.append(retry.get_backoff_time())
    assert waits == [0, 4, 8, 16, 32, 64]
    assert sum(waits) > 120
    monkeypatch.setenv(RETRIES, "9")
    connect(config.tracking)
    assert os.environ[RETRIES] == "9"


def test_only_errors_of_requests_are_those_of_a_server():
    assert say_unanswered(ValueError("x")) is None
    assert say_unanswered(mlflow.MlflowException("no such run")) is None


def test_retries_of_a_model_hub_are_told_in_a_line_each(monkeypatch, caplog, capfd):
    from huggingface_hub.utils import _http

    limit_retries()
    monkeypatch.setattr(_http.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    _http.close_session()  # one that was opened offline stays so
    with pytest.raises(Exception, match="refused"):
        _http.http_backoff("HEAD", "http://127.0.0.1:9/config.json", max_retries=2)
    assert [record.getMessage() for record in caplog.records if record.name == "potstill"] == [
        "model hub: [Errno 111] Connection refused; retry 1 of 2 in 1 s",
        "model hub: [Errno 111] Connection refused; retry 2 of 2 in 2 s",
    ]
    assert capfd.readouterr() == ("", "")
