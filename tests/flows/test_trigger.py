"""What is refused before a run is created, and how a run that is followed ends, by a real server.

The worker is played here: it sends heartbeats, writes lines, and sets the states of a run. A real
one works in tests/integration/test_ci.py.
"""

import json
import logging
import threading
import time
from datetime import UTC, datetime

import pytest
import yaml
from command_line import potstill
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, LogCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed, Running, Scheduled

from flows import trigger as trigger_module
from flows.distill import distill
from flows.promote import promote
from flows.trigger_answers import answer_trigger, read_shown, summarize

POOL = "played"
pytestmark = pytest.mark.usefixtures("deployed")


@pytest.fixture(scope="module")
def client(request):
    request.getfixturevalue("prefect_server")
    with get_client(sync_client=True) as client:
        for name in (POOL, "paused", "deserted"):
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        client.update_work_pool("paused", WorkPoolUpdate(is_paused=True))
        yield client


def deploy(client, name, flow=distill, pool=POOL, **settings):
    usual = {
        "parameters": {"config": "nowhere.yaml"},
        "parameter_openapi_schema": flow.parameters.model_dump(),
        "enforce_parameter_schema": True,
        "entrypoint": "flows/distill.py:distill",
        "work_pool_name": pool,
    }
    return client.create_deployment(
        client.create_flow_from_name(flow.name), name, **usual | settings
    )


@pytest.fixture(scope="module")
def deployed(client):
    """Deployments of a distillation, one for each way in which a run may be refused."""
    deploy(client, "played")
    deploy(client, "paused", pool="paused")
    deploy(client, "deserted", pool="deserted")
    deploy(client, "missing", pool="deserted")
    deploy(client, "twice")
    deploy(client, "twice", flow=promote)
    client.send_worker_heartbeat(POOL, "player", heartbeat_interval_seconds=600)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(trigger_module, "SECONDS_FOR_A_WORKER", 0.2)
    monkeypatch.setattr(trigger_module, "SECONDS_BETWEEN_LOOKS", 0.05)


@pytest.fixture
def file(tmp_path, quick_settings):
    path = tmp_path / "distill.yaml"
    path.write_text(yaml.safe_dump(quick_settings))
    return path


@pytest.fixture
def quick_settings():
    return {
        "name": "animals",
        "data": {"train": "train.csv", "held_out": "held_out.csv"},
        "teacher": {"kind": "saved", "path": "answers.parquet"},
        "students": [{"family": "bag_of_words", "max_features": [50, 200]}],
        "registry": {"model": "animals"},
    }


def runs(client):
    return {run.id for run in client.read_flow_runs()}


def refuse(capsys, client, *arguments):
    """Return the exit code and words of a trigger that creates no run."""
    before = runs(client)
    code, printed = potstill(capsys, "trigger", *arguments)
    assert runs(client) == before
    return code, printed


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nightli"], 2, "There is no deployment 'nightli'"),
        (["distill/plaid"], 2, "(did you mean 'distill/played'?)"),
        (["label/played"], 2, "There is no deployment 'label/played'"),
        (["twice"], 2, "distill/twice, promote/twice. Name the flow too."),
        (["played", "--timeout", "5"], 2, "Add --wait"),
        (["played", "--set", "seed"], 2, "names no value"),
        (["paused"], 7, "is paused. Go on with `prefect work-pool resume paused`"),
        (["deserted"], 7, "no worker asks the work pool 'deserted' for runs"),
    ],
)
def test_what_cannot_run_is_refused_before_a_run_is_created(capsys, client, arguments, code, said):
    found, printed = refuse(capsys, client, *arguments)
    assert (found, said in printed) == (code, True), printed


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["students.0.layrs=2"], "unknown key `students.0.layrs`"),
        (["studnets.0.layers=2"], "unknown key `studnets` (did you mean 'students'?)"),
        (["students.1.max_features=2"], "no item '1' in the list `students`"),
        (["loss.alpha=7"], "`loss.alpha`: must be"),
    ],
)
def test_an_override_that_the_flow_would_refuse_is_refused_here(capsys, client, file, texts, said):
    options = [word for text in texts for word in ("--set", text)]
    code, printed = refuse(capsys, client, "played", "--config", file, *options)
    assert (code, said in printed) == (2, True), printed


def test_a_configuration_that_the_flow_would_refuse_is_refused_here(capsys, client, file):
    file.write_text(f"{file.read_text()}sed: 1\n")
    code, printed = refuse(capsys, client, "played", "--config", file)
    assert code == 2
    assert "unknown key `sed` (did you mean 'seed'?)" in printed


def test_a_deployment_of_an_older_configuration_says_which_keys_to_change(
    capsys, client, quick_settings
):
    older = quick_settings | {"loss": {"temprature": 2}, "sed": 1}
    schema = {"type": "object", "properties": {"config": {}, "overrides": {}}}
    deploy(client, "older", parameters={"config": older}, parameter_openapi_schema=schema)
    code, printed = refuse(capsys, client, "older")
    assert code == 2
    assert "distill/older holds a configuration of another version" in printed
    assert (
        "`loss.temprature` (did you mean 'temperature'?), `sed` (did you mean 'seed'?)" in printed
    )


def test_a_deployment_of_an_older_flow_is_to_be_deployed_again(capsys, client):
    schema = {"type": "object", "properties": {"config": {}}}
    deploy(client, "older-flow", parameter_openapi_schema=schema)
    code, printed = refuse(capsys, client, "older-flow", "--set", "seed=7")
    assert code == 2
    assert "takes no `overrides`" in printed


def test_a_deployed_configuration_is_read_where_its_runs_work(capsys, client, file):
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(file.parent)}}
    deploy(client, "here", parameters={"config": file.name}, pull_steps=[step])
    code, printed = refuse(capsys, client, "here", "--set", "sed=7")
    assert code == 2
    assert "unknown key `sed`" in printed


def test_a_work_pool_that_was_deleted_is_missing(capsys, client):
    client.create_work_pool(WorkPoolCreate(name="gone", type="process"))
    deploy(client, "orphan", pool="gone")
    client.delete_work_pool("gone")
    code, printed = refuse(capsys, client, "orphan")
    assert code == 7
    assert "work pool" in printed


def test_the_server_has_the_last_word_on_parameters(capsys, client, file):
    schema = distill.parameters.model_dump()
    schema["properties"]["overrides"] = {"type": "object", "maxProperties": 0}
    deploy(client, "strict", parameter_openapi_schema=schema)
    code, printed = refuse(capsys, client, "strict", "--config", file, "--set", "seed=7")
    assert code == 2
    assert "distill/strict: the server refuses these parameters" in printed


def play(client, *states, lines=()):
    """Carry out the next run, as a worker does; return the thread that does."""
    before = runs(client)

    def work():
        with get_client(sync_client=True) as mine:
            while not (new := runs(mine) - before):
                time.sleep(0.05)
            (run,) = new
            for line in lines:
                about = {"name": "potstill", "level": logging.INFO, "timestamp": datetime.now(UTC)}
                logs = [LogCreate(message=line, flow_run_id=run, **about).model_dump(mode="json")]
                mine.request("POST", "/logs/", json=logs)
            for state in states:
                mine.set_flow_run_state(run, state, force=True)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("state", "code", "outcome"),
    [
        (Completed(name="Promoted", message="version 2 promoted"), 0, "promoted"),
        (Completed(name="Champion stays"), 0, "champion_already"),
        (Completed(), 0, "done"),
        (Completed(name="Kept as challenger", message="it lost"), 3, "kept_as_challenger"),
        (Completed(name="Waiting for review"), 5, "waiting_for_review"),
        (Failed(message="Flow run encountered NothingQualifiesError: no"), 4, "nothing_qualified"),
        (Failed(message="the disk is full"), 1, "failed"),
        (Cancelled(message="too many at once"), 1, "failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_ends_as_the_run_ends(capsys, client, file, state, code, outcome):
    worker = play(client, Running(), state, lines=["train: bag-of-words"])
    found, printed = potstill(capsys, "trigger", "played", "--config", file, "--wait", "--json")
    worker.join()
    answer = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
    assert (found, answer["outcome"], answer["exit_code"]) == (code, outcome, code)
    assert answer["state"] == state.name
    assert answer["link"].endswith(answer["flow_run"])
    assert "train: bag-of-words" in printed
    assert (state.message or "") in answer["message"]


def test_a_run_gets_the_configuration_of_here_and_its_overrides(capsys, client, file):
    before = runs(client)
    code, printed = potstill(
        capsys, "trigger", "distill/played", "--config", file, "--set", "students.0.max_features=9"
    )
    (new,) = runs(client) - before
    given = client.read_flow_run(new).parameters
    assert code == 0
    assert str(new) in printed
    assert given["overrides"] == {"students.0.max_features": 9}
    assert given["config"] == yaml.safe_load(file.read_text())


def test_a_run_that_does_not_end_in_time_goes_on_and_can_be_cancelled(capsys, client):
    before = runs(client)
    code, printed = potstill(capsys, "trigger", "played", "--wait", "--timeout", "0.005")
    (new,) = runs(client) - before
    assert code == 6
    assert f"the run goes on. Cancel it with `prefect flow-run cancel {new}`" in printed
    assert client.read_flow_run(new).state.is_scheduled()


def test_a_worker_that_dies_before_the_run_begins_is_said(capsys, client, monkeypatch):
    monkeypatch.setattr(trigger_module, "SECONDS_BETWEEN_WORKER_CHECKS", 0.5)
    client.send_worker_heartbeat("deserted", "short", heartbeat_interval_seconds=1)
    code, printed = potstill(capsys, "trigger", "deserted", "--wait")
    assert code == 7
    assert "no worker asks the work pool 'deserted'" in printed
    assert "The run waits for it. Cancel it with" in printed


def test_a_summary_shows_texts_and_never_renders_them(capsys, client, file, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("earlier\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    evil = "<img src=x> | [a](http://evil) `b`"
    worker = play(client, Failed(message=evil))
    code, _ = potstill(capsys, "trigger", "played", "--config", file, "--wait")
    worker.join()
    written = summary.read_text()
    assert code == 1
    assert written.startswith("earlier\n## distill/played: failed\n")
    assert "<img" not in written
    assert "(http://evil)" not in written
    assert "[Flow run](http" in written


def test_without_a_server_it_says_what_to_set(capsys):
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        code, printed = potstill(capsys, "trigger", "nightly")
    assert code == 2
    assert "PREFECT_API_URL is not set" in printed
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        code, printed = potstill(capsys, "trigger", "nightly")
    assert code == 2
    assert "cannot be reached" in printed


def test_tables_of_a_run_are_shown_with_the_columns_people_ask_for(client):

    run = client.create_flow_run_from_deployment(
        client.read_deployment_by_name("distill/played").id, state=Scheduled()
    )
    row = {
        "model": "a\\_b",
        "accuracy": "0.9",
        "interval": "0.8–1",
        "ECE": "0.1",
        "verdict": "BEATS",
    }
    kept = {
        "candidates": ("table", json.dumps([row])),
        "mlflow-run": ("markdown", "[The summary run in MLflow](http://mlflow/#/runs/1)"),
    }
    for key, (kind, data) in kept.items():
        made = ArtifactCreate(key=key, type=kind, data=data, flow_run_id=run.id)
        client.request("POST", "/artifacts/", json=made.model_dump(mode="json"))
    client.set_flow_run_state(run.id, Completed(name="Promoted"), force=True)
    ended = client.read_flow_run(run.id)
    shown = read_shown(client, ended)
    answer = answer_trigger("distill/played", ended, "http://prefect/1", shown)
    assert answer.mlflow == "http://mlflow/#/runs/1"
    written = summarize(answer, shown)
    assert "| model | accuracy | interval | verdict |\n| --- | --- | --- | --- |\n" in written
    assert "| a\\_b | 0.9 | 0.8–1 | BEATS |" in written
    assert "[Flow run](http://prefect/1) · [MLflow run](http://mlflow/#/runs/1)" in written
