import json
import subprocess
import sys

import mlflow
import pytest
from mlflow.tracking.context import registry
from prefect import flow, task
from prefect.runtime import flow_run

from distill_tasks.plugins.run_context import PrefectRunContext

STARTED = """
import json, sys
import mlflow
from mlflow.models import list_evaluators
from mlflow.tracking.context.registry import _run_context_provider_registry as providers
from mlflow.tracking.context.registry import resolve_tags

print(json.dumps({
    "loaded": sorted(sys.modules),
    "evaluators": list_evaluators(),
    "providers": [type(provider).__name__ for provider in providers],
    "tags": [name for name in resolve_tags() if name.startswith("prefect")],
}))
"""


def import_mlflow(environment, folder):
    command = [sys.executable, "-c", STARTED]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_mlflow_finds_both_plugins_and_imports_nothing_heavy_for_them(installed, tmp_path):
    bare = {key: value for key, value in installed.items() if key != "PYTHONPATH"}
    (said, warned), (before, _) = import_mlflow(installed, tmp_path), import_mlflow(bare, tmp_path)
    assert "PrefectRunContext" in said["providers"]
    assert "distillation" in said["evaluators"]
    assert said["tags"] == []
    assert warned == ""
    added = {name.split(".")[0] for name in {*said["loaded"]} - {*before["loaded"]}}
    assert added <= {"distill_tasks"}
    assert not {"torch", "prefect"} & {*said["loaded"]}


@pytest.fixture
def provided(monkeypatch, empty_mlflow, tmp_path):
    """MLflow as it is where this project is installed, with an empty store."""
    known = registry._run_context_provider_registry
    if not any(isinstance(provider, PrefectRunContext) for provider in known):
        monkeypatch.setattr(known, "_registry", [*known, PrefectRunContext()])
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield
    mlflow.set_tracking_uri(before)


def start_run():
    with mlflow.start_run(experiment_id="0") as run:
        tags = mlflow.get_run(run.info.run_id).data.tags
    return {name: value for name, value in tags.items() if name.startswith("prefect.")}


@flow(name="plugins-here", flow_run_name="a run")
def in_flow():
    in_task = task(start_run)
    return flow_run.id, start_run(), in_task(), in_task.submit().result()


@pytest.mark.usefixtures("provided", "prefect_server")
def test_runs_inside_a_flow_say_of_which_flow_run_they_are_part():
    identity, *stamped = in_flow()
    for tags in stamped:
        assert tags.pop("prefect.flow_run_url", "http").startswith("http")
        assert tags == {
            "prefect.flow_run_id": identity,
            "prefect.flow_run_name": "a run",
            "prefect.flow_name": "plugins-here",
        }


@pytest.mark.usefixtures("provided")
def test_runs_outside_a_flow_are_left_alone():
    assert start_run() == {}
