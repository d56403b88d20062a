"""prefect.yaml, deployed as it stands to a real server and run by a real worker."""

import importlib
import json
import os
import re
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
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.context import get_settings_context
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint

from flows.deployed import open_config
from flows.distill import distill

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
    given = getattr(module, name).validate_parameters(deployment["parameters"])
    assert open_config(ROOT / given["config"]).name == "reuters-r8"


def test_the_deployments_of_the_readme_have_no_key_that_prefect_ignores_and_name_flows():
    readme = (ROOT / "README.md").read_text()
    file = yaml.safe_load(re.search(r"```yaml\n(name: tickets\ndef.*?)```", readme, re.DOTALL)[1])
    assert unknown_keys(file) == set()
    for deployment in file["deployments"]:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        flow.validate_parameters(deployment["parameters"])


def test_a_configuration_is_taken_whole_or_by_its_path(quick, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(quick))
    by_path = distill.validate_parameters({"config": str(tmp_path / "mine.yaml")})["config"]
    whole = distill.validate_parameters({"config": quick})["config"]
    assert open_config(by_path) == open_config(whole) == whole


def test_a_mistake_in_a_whole_configuration_is_told_as_that(quick):
    with pytest.raises(ParameterTypeError) as caught:
        distill.validate_parameters({"config": quick | {"studnets": []}})
    assert "studnets" in str(caught.value)
    assert "path" not in str(caught.value).split("studnets")[0].casefold()


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
def test_a_worker_runs_a_deployment_to_its_end(quick, tmp_path):
    brief = quick | {"evaluate": {"controls": False, "seeds": 1}}
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(brief))
    ask = ("deployment", "run", "distill/on-demand", "-p")
    said = prefect(
        ("work-pool", "create", "--type", "process", POOL),
        ("deploy", "--all"),
        (*ask, f"config={json.dumps(brief | {'studnets': []})}"),
        (*ask, f"config={json.dumps(str(mine))}"),
        ("worker", "start", "--pool", POOL, "--run-once"),
    )
    assert [code for code, _ in said] == [0, 0, 1, 0, 0], said
    assert "studnets" in said[2][1]
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(deployment_filter=of_name("on-demand"))
        mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        lines = [log.message for log in client.read_logs(mine) if log.name == "potstill"]
    assert run.state.is_completed(), run.state
    assert (run.name, run.state.name) == ("animals", "Promoted")
    first = "no champion yet: version 1 is the first"
    assert run.state.message == f"version 1 promoted to champion: {first}"
    assert any(line.startswith("label: asking the teacher") for line in lines), lines
    assert list(Path(quick["work_dir"]).glob("students/*/manifest.json"))


def of_name(name):
    return DeploymentFilter(name=DeploymentFilterName(any_=[name]))
