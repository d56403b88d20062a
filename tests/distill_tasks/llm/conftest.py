from functools import partial

import pytest
import sessions
from answering import judge
from endpoint import ScriptedEndpoint
from endpoint_script import Script
from language_models import make_causal_model

from distill_tasks.llm import batch_api, client


@pytest.fixture(scope="session")
def tiny_causal_model():
    """A random Llama of 3 layers × 32, in float32."""
    return make_causal_model("llama")


@pytest.fixture
def endpoint():
    with ScriptedEndpoint(judge, Script(input_price=1.0, output_price=2.0)) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Wait for thousandths of a second where a night waits for seconds."""
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.002)
    for name in ("FIRST_POLL_S", "LONGEST_POLL_S"):
        monkeypatch.setattr(batch_api, name, 0.002)


@pytest.fixture
def open_session(endpoint, tmp_path):
    """Return a function that opens a session with settings; all share one ledger."""
    return partial(sessions.open_session, endpoint.url, tmp_path)
