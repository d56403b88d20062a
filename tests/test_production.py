"""What runs Potstill for real: `make up` and `make down`, and what describes the same elsewhere."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import jsonschema
import pytest
import yaml
from mlflow_server import find_port, is_up
from postgres import serve_postgres

from production.kubernetes_pool import make_template, read_template

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs/deploying.md").read_text()
POOLS = {
    "containers": read_template("prefect-docker", "docker"),
    "kubernetes": make_template(),
}


def test_compose_yaml_is_as_its_schema_says():
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    written = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert written["services"].keys() == {"postgres", "prefect", "mlflow", "deployments", "worker"}
    used = {
        mount.split(":")[0]
        for service in written["services"].values()
        for mount in service.get("volumes", ())
        if not mount.startswith(".")
    }
    assert used == written["volumes"].keys()


def test_a_password_stands_in_no_file_of_a_production():
    for path in [ROOT / "compose.yaml", *(ROOT / "production").iterdir()]:
        if path.is_file():
            assert not re.search(r"PASSWORD(:|=)(?! \$\{|…|\?)", path.read_text()), path


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(work_pool:.*?)```", PAGE, re.DOTALL))
def test_a_pool_takes_the_variables_of_the_page(block):
    pool = yaml.safe_load(block)["work_pool"]
    takes = POOLS[pool["name"]]["variables"]
    jsonschema.validate(pool["job_variables"], takes)
    assert pool["job_variables"].keys() <= takes["properties"].keys()


def test_the_page_shows_both_pools():
    assert re.findall(r"work_pool:\n  name: (\w+)", PAGE) == list(POOLS)


def test_the_job_of_kubernetes_is_the_one_of_prefect_with_the_store():
    ours, shipped = make_template(), read_template("prefect-kubernetes", "kubernetes")
    pod = ours["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod.pop("volumes")}
    for container in pod["containers"]:
        assert {mount["name"] for mount in container.pop("volumeMounts")} == volumes
    assert ours == shipped


class Production:
    """A production of its own: free ports, a folder, and the words of the Makefile."""

    def __init__(self, state, **known):
        self.prefect, self.mlflow = find_port(), find_port()
        ports = {"PREFECT_PORT": str(self.prefect), "MLFLOW_PORT": str(self.mlflow)}
        left_out = ("PREFECT_", "MLFLOW_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        self.env = env | ports | {"STATE": str(state)} | known

    def say(self, word):
        command = [sys.executable, ROOT / "production/local.py", word]
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True)

    def run(self, program, *words):
        """Run a program in the shell that `up` describes."""
        shell = {
            "PREFECT_API_URL": f"http://127.0.0.1:{self.prefect}/api",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow}",
        }
        command = [BIN / program, *map(str, words)]
        return subprocess.run(
            command, cwd=ROOT, env=self.env | shell, capture_output=True, text=True
        )

    def count_runs(self, name):
        address = f"http://127.0.0.1:{self.prefect}/api/flow_runs/count"
        wanted = json.dumps({"flow_runs": {"name": {"any_": [name]}}}).encode()
        request = urllib.request.Request(address, wanted, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    @property
    def processes(self):
        """The processes that run with this state in their environment."""
        mark = f"STATE={self.env['STATE']}\0".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:  # it has ended
                continue
        return found


@pytest.fixture
def production(tmp_path):
    made = Production(tmp_path / "state")
    yield made
    made.say("down")
    assert made.processes == []


@pytest.mark.slow
def test_a_production_on_files_is_up_and_then_is_not(production):
    started = production.say("up")
    assert started.returncode == 0, started.stderr
    assert f"export PREFECT_API_URL=http://127.0.0.1:{production.prefect}/api" in started.stdout
    assert "distill/nightly" in production.run("prefect", "deployment", "ls").stdout
    assert is_up(f"http://127.0.0.1:{production.mlflow}/health")
    assert production.say("down").returncode == 0
    assert production.processes == []
    assert not is_up(f"http://127.0.0.1:{production.mlflow}/health")
    assert production.say("down").stdout.startswith("Nothing is up")


@pytest.fixture
def production_on_postgres(production):
    with serve_postgres() as address:
        production.env["POSTGRES"] = address.removesuffix("/mlflow").replace("+psycopg2", "")
        yield production
        production.say("down")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_production_runs_a_deployment_and_knows_it_after_a_restart(
    production_on_postgres, quick, tmp_path
):
    production = production_on_postgres
    del quick["tracking"]  # the server that it brings is where runs are recorded
    mine = tmp_path / "distill.yaml"
    mine.write_text(yaml.safe_dump(quick | {"evaluate": {"controls": False}}))
    started = production.say("up")
    assert started.returncode == 0, started.stderr
    given = ("-p", f"config={json.dumps(str(mine))}")
    ran = production.run("prefect", "deployment", "run", "distill/on-demand", "--watch", *given)
    assert ran.returncode == 0, ran.stdout
    before = production.run("potstill", "history", "animals", "--json").stdout
    assert json.loads(before)["events"][-1]["kind"] == "promoted"
    assert production.say("down").returncode == 0
    assert production.say("up").returncode == 0
    assert production.run("potstill", "history", "animals", "--json").stdout == before
    assert production.count_runs("animals") == 1


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path):
    production = Production(tmp_path / "state")
    with socket.socket() as other:
        other.bind(("127.0.0.1", production.mlflow))
        other.listen()
        done = production.say("up")
    assert done.returncode == 2
    assert f"Port {production.mlflow}, meant for mlflow, is taken." in done.stderr
    assert production.processes == []


def test_a_postgresql_that_does_not_answer_is_one_line(tmp_path):
    production = Production(
        tmp_path / "state", POSTGRES=f"postgresql://ann:geheim@127.0.0.1:{find_port()}"
    )
    done = production.say("up")
    assert done.returncode == 2
    assert done.stderr.startswith("error: POSTGRES does not answer: ")
    assert "geheim" not in done.stderr
    assert production.processes == []
