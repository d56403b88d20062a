import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import prefect
import pytest
from command_line import potstill
from mlflow_server import find_port
from prefect.settings import PREFECT_API_URL, temporary_settings

from distill_tasks.core.errors import InputError, PotstillError
from flows import prefect_server
from flows.automations import apply_notices, list_notices
from flows.prefect_server import compare_versions, open_server


@contextmanager
def serve_version(version):
    """Serve what a Prefect server of a version answers first, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path.endswith(("/version", "/health"))
            body = json.dumps(version if "version" in self.path else True).encode()
            self.send_response(200 if known else 500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
            yield
        server.shutdown()


def refusal():
    with pytest.raises(InputError) as caught, open_server("deployments"):
        pass
    return str(caught.value)


def test_where_no_server_is_named_it_says_what_to_set():
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        said = "PREFECT_API_URL is not set, so there is no server that holds deployments. Set it"
        assert refusal().startswith(said)


def test_a_server_that_does_not_answer_is_named():
    with temporary_settings({PREFECT_API_URL: f"http://bob:pw@127.0.0.1:{find_port()}/api"}):
        assert refusal().startswith("PREFECT_API_URL http://")
        assert "cannot be reached" in refusal()


def test_a_trigger_on_a_server_of_another_major_version_is_refused(capsys):
    with serve_version("2.20.4"):
        code, printed = potstill(capsys, "trigger", "nightly")
    assert code == 2
    assert "Prefect here is 3." in printed
    assert "the server's is 2.20.4" in printed


def test_automations_without_a_server_that_answers_are_refused_in_a_line():
    nobody = temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{find_port()}/api"})
    with nobody, pytest.raises(InputError, match=r"^PREFECT_API_URL .* cannot be reached: .*\.$"):
        apply_notices(list_notices(), "slack-webhook/ops")
    unset = temporary_settings(restore_defaults={PREFECT_API_URL})
    with unset, pytest.raises(InputError, match="no server that holds automations"):
        apply_notices(list_notices(), "slack-webhook/ops")


def test_a_server_of_another_major_version_is_refused_and_both_are_named():
    with serve_version("2.20.4"):
        assert refusal().startswith(
            f"Prefect here is {prefect.__version__}, the server's is 2.20.4"
        )


def test_a_server_of_another_minor_version_is_warned_of(caplog, monkeypatch):
    monkeypatch.setattr(prefect_server.logger, "propagate", True)
    compare_versions("3.7.1", "3.8.8")
    assert "Prefect here is 3.8.8, the server's is 3.7.1: keep them alike" in caplog.text
    caplog.clear()
    compare_versions("3.8.8", "3.8.8")
    assert not caplog.text


def test_a_server_that_fails_while_it_is_asked_is_one_line():
    said = r"^The Prefect server at http://\S+ did not do it: .*500"
    with serve_version(prefect.__version__), pytest.raises(PotstillError, match=said) as caught:
        apply_notices(list_notices(), "slack-webhook/ops")
    assert len(str(caught.value).splitlines()) == 1
