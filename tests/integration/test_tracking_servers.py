"""The whole command line against an MLflow server as teams run one: by password, on PostgreSQL."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from mlflow_server import BASIC_AUTH, serve_mlflow
from postgres import serve_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

USER, PASSWORD = "admin", "correct horse battery"
LOGIN = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}


@pytest.fixture
def server(tmp_path):
    """The address of a server that asks for a password and keeps all in PostgreSQL."""
    secrets = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}
    secrets["MLFLOW_AUTH_ADMIN_USERNAME"] = USER
    with (
        serve_postgres() as database,
        serve_mlflow(tmp_path, database, BASIC_AUTH, secrets) as address,
    ):
        yield address


@pytest.fixture(autouse=True)
def fresh_prefect(prefect_home, tmp_path):
    prefect_home(tmp_path / "home")


def run(folder, environment, *command):
    """Run the command line in a process of its own; return its code and what it printed."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, command)],
        cwd=folder,
        env=known | environment | {"PREFECT_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_server_takes_the_whole_way_from_rows_to_roll_back(quick, server, tmp_path):
    quick |= {"tracking": {"uri": server, "experiment": "night"}}
    quick["evaluate"] = {"controls": False}
    poor, good = ([{"family": "bag_of_words", "max_features": size}] for size in (3, 200))
    path = tmp_path / "distill.yaml"
    for students, champion in ((poor, 1), (good, 2)):
        path.write_text(yaml.safe_dump(quick | {"students": students}))
        code, said = run(tmp_path, LOGIN, "run", path)
        assert code == 0, said
        assert f"Champion of animals is now version {champion} " in said
        assert f"{server}/#/experiments/" in said
    rows = tmp_path / "held_out.csv"
    pd.read_parquet(quick["data"]["held_out"]).to_csv(rows, index=False)
    pair = ["models:/animals@champion", "models:/animals@previous"]
    code, said = run(tmp_path, LOGIN, "compare", *pair, "--on", rows, "--tracking-uri", server)
    assert code == 0, said
    assert f"BEATS: accuracy of {pair[0]} minus that of {pair[1]} is" in said
    for champion, previous in ((1, 2), (2, 1)):
        code, said = run(tmp_path, LOGIN, "rollback", path)
        assert code == 0, said
        assert f"is now version {champion} (no reason given); previous: version {previous}." in said
    code, said = run(tmp_path, LOGIN, "promote", path, "--version", 1)
    assert code == 1, said
    assert "Nothing was promoted: NO BEATS" in said
    serve = "import mlflow; print(mlflow.pyfunc.load_model('models:/animals@champion')"
    serve += ".predict(['purr kitten']).label[0])"
    known = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    known |= LOGIN | {"MLFLOW_TRACKING_URI": server}
    answer = subprocess.run(
        [sys.executable, "-c", serve], env=known, capture_output=True, text=True
    )
    assert answer.stdout.split()[-1] == "cats", answer.stderr
    files = [found for found in tmp_path.rglob("*") if found.is_file()]
    assert not [found for found in files if PASSWORD.encode() in found.read_bytes()]
    code, said = run(tmp_path, {}, "check", path)
    assert code == 2, said
    assert "MLFLOW_TRACKING_USERNAME" in said
