"""prefect.yaml, deployed as it stands to a real server and run by a real worker."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)

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


@pytest.fixture
def server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    running = start(["server", "start", "--port", str(port)], environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health")
        yield environment
    finally:
        end(running)


def start(arguments, environment):
    program = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.Popen(
        program, env=environment, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL
    )


def end(running):
    os.killpg(running.pid, signal.SIGTERM)
    try:
        running.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def wait_for(address):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(address)


def prefect(environment, *arguments):
    program = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    return subprocess.run(program, env=environment, cwd=ROOT, capture_output=True, text=True)


def test_a_worker_runs_a_deployment_to_its_end(server, quick):
    made = prefect(server, "work-pool", "create", "--type", "process", FILE_POOL)
    assert made.returncode == 0, made.stderr
    deployed = prefect(server, "deploy", "--all")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    worker = start(["worker", "start", "--pool", FILE_POOL], server)
    try:
        config = f"config={json.dumps(quick)}"
        watch = ("--watch", "--watch-timeout", "200")
        done = prefect(server, "deployment", "run", "distill/on-demand", "-p", config, *watch)
        assert done.returncode == 0, done.stdout + done.stderr
        broken = f"config={json.dumps(quick | {'studnets': []})}"
        refused = prefect(server, "deployment", "run", "distill/on-demand", "-p", broken, *watch)
        assert refused.returncode == 1
    finally:
        end(worker)
    assert list(Path(quick["work_dir"]).glob("students/*/manifest.json"))


FILE_POOL = FILE["deployments"][0]["work_pool"]["name"]
