"""No record, log or page ever holds a password or a token, wherever a user puts it."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from mlflow_server import serve_mlflow
from samples import CLASSES, make_rows, save_answers

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.core.markup import as_markdown
from flows.distill import distill

MARK = "hunter2MARKEDSECRET0123456789abcdef"
ENVIRONMENT = {
    "MLFLOW_TRACKING_USERNAME": "bob",
    "MLFLOW_TRACKING_PASSWORD": MARK,
    "MLFLOW_TRACKING_URI": f"http://bob:{MARK}@127.0.0.1:9",
    "PGPASSWORD": MARK,
    "HF_TOKEN": f"hf_{MARK}",
    "OPENAI_API_KEY": f"sk-proj-{MARK}",
    "AWS_SECRET_ACCESS_KEY": MARK,
    "PREFECT_API_KEY": f"pnu_{MARK}",
    "HTTPS_PROXY": f"http://bob:{MARK}@127.0.0.1:9",
}
"""Every variable in which a user might keep one."""
PLACES = [
    ("tracking", "uri", f"http://bob:{MARK}@127.0.0.1:9"),
    ("tracking", "uri", f"postgresql://bob:{MARK}@127.0.0.1:9/mlflow"),
    ("tracking", "experiment", f"hf_{MARK}"),
    ("tracking", "password", MARK),
    ("data", "train", f"https://bob:{MARK}@rows.example/train.csv"),
    ("data", "train", {"hub": f"https://{MARK}@hub.example/a", "revision": "1", "split": "train"}),
    ("teacher", "path", f"https://rows.example/answers.parquet?token={MARK}"),
    ("registry", "model", f"hf_{MARK}"),
    ("work_dir", None, f"s3://bob:{MARK}@bucket"),
]


def find_mark(folder):
    """Return every file in which the secret stands, but for the configuration itself."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "distill.yaml"]
    assert files
    return [path for path in files if MARK.encode() in path.read_bytes()]


@pytest.fixture(autouse=True)
def fresh_prefect(prefect_home, tmp_path):
    prefect_home(tmp_path / "prefect")


@pytest.fixture
def brief(quick):
    """A configuration whose first run has a champion soon."""
    return quick | {"evaluate": {"controls": False, "seeds": 1}}


def run(command, settings, folder, **variables):
    """Run one command in a process of its own, whose Prefect keeps everything in the folder."""
    path = folder / "distill.yaml"
    path.write_text(yaml.safe_dump(settings))
    home = {"PREFECT_HOME": str(folder / "prefect"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", command, str(path)],
        env=os.environ | home | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("section", "key", "secret"), PLACES)
def test_a_secret_in_the_configuration_is_refused_whatever_door_it_comes_by(
    quick, section, key, secret, tmp_path
):
    quick |= {section: secret if key is None else quick[section] | {key: secret}}
    override = {section if key is None else f"{section}.{key}": secret}
    doors = [
        lambda: parse_config(quick, "distill.yaml"),
        lambda: distill.validate_parameters({"config": quick}),
        lambda: distill.validate_parameters({"config": "distill.yaml", "overrides": override}),
    ]
    for enter in doors:
        with pytest.raises(InputError) as caught:
            enter()
        place = section if key is None else f"{section}.{key}"
        assert f"`{place}" in str(caught.value)
        assert MARK not in str(caught.value)
    assert not find_mark(tmp_path)


@pytest.mark.slow
def test_a_secret_in_the_configuration_reaches_neither_prefect_nor_mlflow(quick, tmp_path):
    for section, key, secret in PLACES[:5]:
        settings = quick | {section: quick[section] | {key: secret}}
        done = run("run", settings, tmp_path)
        assert done.returncode == 2, done.stderr
        assert MARK not in done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not find_mark(tmp_path)


@pytest.mark.slow
def test_secrets_of_the_environment_are_written_nowhere(brief, tmp_path):
    """Neither by the run nor by the server that it speaks to with a password."""
    folder = tmp_path / "server"
    folder.mkdir()
    with serve_mlflow(folder) as address:
        brief["tracking"] = {"uri": address}
        done = run("run", brief, tmp_path, **ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "Champion of animals is now version 1" in done.stdout
    assert MARK not in done.stdout + done.stderr
    assert list(tmp_path.rglob("report.html"))
    assert list(tmp_path.rglob("prefect.db"))
    assert not find_mark(tmp_path)


NAME = "refund [/complaint] [click](http://evil.example) :smile: — müd \x1b[2J"


@pytest.mark.slow
def test_names_that_want_to_be_markup_end_no_run_on_an_ascii_terminal(brief, data_folder, tmp_path):
    """The table, the notes and the pages come after promotion: none of them may end the run."""
    rows = make_rows(300, seed=1)
    save_answers([rows], tmp_path / "answers.parquet", wrong=0.05)
    for path in [*data_folder.glob("*.parquet"), tmp_path / "answers.parquet"]:
        frame = pd.read_parquet(path).rename(columns={CLASSES[0]: NAME})
        if "label" in frame:
            frame["label"] = frame["label"].replace(CLASSES[0], NAME)
        frame["text"] = frame["text"] + f" {NAME}"
        frame.to_parquet(path, index=False)
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = run("run", brief, tmp_path, PYTHONCOERCECLOCALE="0", **ascii_only)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert "Champion of animals is now version 1" in done.stdout
    assert "\x1b" not in done.stdout
    (page,) = tmp_path.rglob("report.md")
    written = page.read_text(encoding="utf-8")
    assert as_markdown(NAME) in written
    assert "[click](http:" not in written
