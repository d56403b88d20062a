"""prefect.yaml, deployed as it stands to a real server and run by a real worker."""

import asyncio
import copy
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

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
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.context import get_settings_context
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import CronSchedule
from prefect.workers.process import ProcessWorker

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
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
    found |= unknown_in_steps(file)
    for deployment in file["deployments"]:
        pool = deployment.get("work_pool", {})
        found |= set(deployment) - names_of(DeploymentConfig)
        found |= set(pool) - names_of(WorkPoolConfig)
        found |= set(pool.get("job_variables", {})) - JOB_VARIABLES
        found |= set(deployment.get("concurrency_limit", {})) - names_of(ConcurrencyLimitSpec)
        found |= unknown_in_steps(deployment)
        for schedule in deployment.get("schedules", []):
            found |= set(schedule) - names_of(RawScheduleConfig)
    return found


def unknown_in_steps(part):
    """Return every setting of build and pull steps that the function behind it does not take."""
    steps = [step for kind in ("build", "push", "pull") for step in part.get(kind, [])]
    found = set()
    for name, given in (pair for step in steps for pair in step.items()):
        module, function = name.rsplit(".", 1)
        taken = inspect.signature(getattr(importlib.import_module(module), function)).parameters
        found |= set(given) - set(taken) - {"id", "requires"}
    return found


JOB_VARIABLES = set(ProcessWorker.get_default_base_job_template()["variables"]["properties"])


def test_prefect_yaml_has_no_key_that_prefect_ignores():
    assert unknown_keys(FILE) == set()


STEP = "prefect.deployments.steps.run_shell_script"
FIRST = ["deployments", 0]


@pytest.mark.parametrize(
    "path",
    [
        ["biuld"],
        ["build", 0, STEP, "scirpt"],
        [*FIRST, "concurency_limit"],
        [*FIRST, "concurrency_limit", "collision"],
        [*FIRST, "work_pool", "nmae"],
        [*FIRST, "work_pool", "job_variables", "environ"],
        [*FIRST, "schedules", 0, "timzone"],
    ],
    ids=lambda path: path[-1],
)
def test_a_misspelt_key_would_be_found(path):
    file = place = copy.deepcopy(FILE)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = 1
    assert unknown_keys(file) == {path[-1]}


def test_each_deployment_says_what_it_runs_when_and_how_many_at_once():
    by_name = {deployment["name"]: deployment for deployment in FILE["deployments"]}
    assert {name: one["entrypoint"].partition(":")[2] for name, one in by_name.items()} == {
        "nightly": "distill",
        "on-demand": "distill",
        "label": "label_only",
        "promote": "promote",
    }
    for one in by_name.values():
        assert one["tags"]
        assert one["concurrency_limit"]["limit"] == 1
        assert ConcurrencyLimitStrategy(one["concurrency_limit"]["collision_strategy"])
        assert one["version"] == "{{ commit.stdout }}"
    (nightly,), (often,) = by_name["nightly"]["schedules"], by_name["promote"]["schedules"]
    assert nightly["timezone"]
    assert 60 <= often["interval"] <= 3600


@pytest.mark.parametrize(
    ("cron", "spring", "autumn"),
    [("0 3 * * *", ["03:00"], ["03:00"]), ("30 2 * * *", ["01:30"], ["02:30"])],
)
def test_a_night_of_daylight_saving_goes_as_prefect_yaml_says(cron, spring, autumn):
    schedule = CronSchedule(cron=cron, timezone="Europe/Berlin")
    for (month, day), expected in (((3, 29), spring), ((10, 25), autumn)):
        begin = datetime(2026, month, day, tzinfo=ZoneInfo("Europe/Berlin"))
        dates = schedule.get_dates(10, start=begin, end=begin + timedelta(days=1))
        found = asyncio.run(dates)
        assert [f"{one:%H:%M}" for one in found if one.date() == begin.date()] == expected


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
    read = parse_config(quick, "here")
    made = distill.validate_parameters({"config": read})["config"]
    assert open_config(by_path) == open_config(whole) == made == read


def test_overrides_are_set_before_the_grid_is_expanded_however_a_configuration_is_given(
    quick, tmp_path
):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(quick))
    overrides = {"students.0.max_features": [5, 6, 7], "seed": 9}
    for config in (tmp_path / "mine.yaml", quick):
        changed = open_config(config, overrides=overrides)
        assert [student.max_features for student in changed.students] == [5, 6, 7]
        assert changed.seed == 9
    expanded = open_config(parse_config(quick, "x"), overrides={"students.1.max_features": 9})
    assert [student.max_features for student in expanded.students] == [50, 9]


def test_a_mistake_in_a_whole_configuration_is_told_as_that(quick):
    wrong = distill.validate_parameters({"config": quick | {"studnets": []}})["config"]
    with pytest.raises(InputError, match=r"unknown key `studnets` \(did you mean 'students'"):
        open_config(wrong)
    with pytest.raises(ParameterTypeError, match="path"):
        distill.validate_parameters({"config": 7})


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
@pytest.mark.slow
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
        version = client.read_deployment_by_name("distill/on-demand").version
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?|unknown", version)
    assert run.state.is_completed(), run.state
    assert (run.name, run.state.name) == ("animals", "Promoted")
    first = "no champion yet: version 1 is the first"
    assert run.state.message == f"version 1 promoted to champion: {first}"
    assert any(line.startswith("label: asking the teacher") for line in lines), lines
    assert list(Path(quick["work_dir"]).glob("students/*/manifest.json"))


def of_name(name):
    return DeploymentFilter(name=DeploymentFilterName(any_=[name]))
