"""prefect.yaml, deployed as it stands to a real server and run by a real worker."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.context import get_settings_context

from distill_tasks.config import DistillConfig, load_config

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "prefect.yaml").read_text())


def names_of(model):
    fields = model.model_fields.items()
    return {info.alias or name for name, info in fields} | {name for name, _ in fields}


def unknown_keys(file):
    """Return every key that Prefect would silently ignore."""
    found = set(file) - names_of(PrefectYamlModel) - {"definitions", "prefect-version"}
    for deployment in file["deployments"]:
        found |= set(deployment) - names_of(DeploymentConfig)
        found |= set(deployment.get("work_pool", {})) - names_of(WorkPoolConfig)
        found |= set(deployment.get("concurrency_limit", {})) - names_of(ConcurrencyLimitSpec)
        for schedule in deployment.get("schedules", []):
            found |= set(schedule) - names_of(RawScheduleConfig)
    return found


def test_prefect_yaml_has_no_key_that_prefect_ignores():
    assert unknown_keys(FILE) == set()


@pytest.mark.parametrize("path", [["concurency_limit"], ["work_pool", "nmae"]])
def test_a_misspelt_key_would_be_found(path):
    file = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    place = file["deployments"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = 1
    assert unknown_keys(file) == {path[-1]}


def test_two_deployments_distil_and_one_promotes():
    entrypoints = [deployment["entrypoint"] for deployment in FILE["deployments"]]
    assert sorted(entrypoints) == [
        "flows/distill.py:distill",
        "flows/distill.py:distill",
        "flows/promote.py:promote",
    ]
    nightly = FILE["deployments"][0]
    assert nightly["schedules"][0]["timezone"]
    assert nightly["concurrency_limit"]["limit"] == 1


@pytest.mark.parametrize("deployment", FILE["deployments"], ids=lambda each: each["name"])
def test_every_deployment_names_a_flow_and_a_configuration_it_takes(deployment):
    path, name = deployment["entrypoint"].split(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    getattr(module, name).validate_parameters(deployment["parameters"])
    written = DistillConfig.model_validate(deployment["parameters"]["config"])
    assert written == load_config(ROOT / "examples/reuters/distill.yaml")


POOL = FILE["deployments"][0]["work_pool"]["name"]
COMMANDS = """
import json, sys
from prefect.testing.cli import CycloptsCliRunner

for command in json.loads(sys.argv[1]):
    done = CycloptsCliRunner().invoke(["--no-prompt", *command])
    print(json.dumps([done.exit_code, done.output]), flush=True)
"""


def prefect(*commands):
    """Run commands of Prefect's own command line, one after the other, in one fresh Python."""
    program = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    settings = get_settings_context().settings
    server = settings.to_environment_variables(exclude_unset=True)
    done = subprocess.run(program, env=os.environ | server, cwd=ROOT, stdout=-1, text=True)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(commands), done.stdout
    return said


@pytest.mark.usefixtures("prefect_server")
def test_a_worker_runs_a_deployment_to_its_end(quick):
    brief = quick | {"evaluate": {"controls": False, "seeds": 1}}
    ask = ("deployment", "run", "distill/on-demand", "-p")
    said = prefect(
        ("work-pool", "create", "--type", "process", POOL),
        ("deploy", "--all"),
        (*ask, f"config={json.dumps(brief | {'studnets': []})}"),
        (*ask, f"config={json.dumps(brief)}"),
        ("worker", "start", "--pool", POOL, "--run-once"),
    )
    assert [code for code, _ in said] == [0, 0, 1, 0, 0], said
    assert "'studnets' was unexpected" in said[2][1]
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(deployment_filter=of_name("on-demand"))
    assert run.state.is_completed(), run.state
    assert list(Path(quick["work_dir"]).glob("students/*/manifest.json"))


def of_name(name):
    return DeploymentFilter(name=DeploymentFilterName(any_=[name]))
