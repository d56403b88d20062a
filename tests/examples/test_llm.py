"""The example with a real language model behind a real server, where one is built."""

import json
import os
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest
import yaml
from command_line import potstill
from language_models import find_smollm2
from mlflow_server import find_port, wait_until_up

from distill_tasks.config import load_config
from distill_tasks.llm import client
from distill_tasks.results.teacher import make_teacher
from distill_tasks.stages.prepare import check_config
from distill_tasks.stages.preview import estimate_labels

FOLDER = Path(__file__).parents[2] / "examples" / "llm"
BUILD = "POTSTILL_BUILD_LLAMA"
"""The variable that has the server built where it is not: ten minutes, too much for CI."""
ROWS = {"train": 100, "validation": 20, "transfer": 10}
HELD_OUT_ROWS = 10

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def modules():
    """The scripts of the example: what writes its rows, and what serves the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import prepare
        import serve

        yield prepare, serve


@pytest.fixture(scope="module")
def endpoint(modules, tmp_path_factory):
    """The address of the server with SmolLM2 behind it."""
    _, serve = modules
    if not (serve.is_built() or os.environ.get(BUILD)):
        pytest.skip(f"llama-cpp-python is not built here; {BUILD}=1 builds it, in ten minutes")
    try:
        python = serve.build()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"llama-cpp-python cannot be built here: {error}")
    port, log = find_port(), tmp_path_factory.mktemp("llm") / "server.log"
    with log.open("w") as output:
        command = serve.make_command(python, find_smollm2(), port)
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until_up(server, f"http://127.0.0.1:{port}/v1/models", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def config(modules, endpoint, tmp_path, monkeypatch):
    """The path of the example's configuration, with fewer rows, in a folder of its own."""
    prepare, _ = modules
    for name, value in {"DATA": tmp_path, "ROWS": ROWS, "HELD_OUT_ROWS": HELD_OUT_ROWS}.items():
        monkeypatch.setattr(prepare, name, value)
    prepare.main()
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.01)
    written = yaml.safe_load((FOLDER / "distill.yaml").read_text())
    written["data"] = {
        name: str(tmp_path / Path(path).name) for name, path in written["data"].items()
    }
    written["teacher"] |= {"base_url": endpoint, "self_agreement_rows": 5}
    written |= {"work_dir": str(tmp_path), "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"}}
    path = tmp_path / "distill.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def test_the_run_says_by_itself_that_this_teacher_is_not_good_enough(config, capsys):
    code, printed = potstill(capsys, "run", config)
    said = " ".join(printed.split())
    assert code == 1
    assert re.search(r"The teacher's accuracy on 20 rows of validation is 0\.\d+", said)
    assert "below evaluate.min_teacher_accuracy 0.8" in said
    loaded = load_config(config)
    corpus = check_config(loaded)
    assert make_teacher(loaded, corpus).identity == f"{loaded.teacher.model} 1"  # as it was asked
    left = estimate_labels(loaded, corpus)
    assert (left.rows, left.measured) == (0, True)
    (file,) = (config.parent / "replies").glob("*.sqlite")
    last = "SELECT reply FROM calls WHERE reply IS NOT NULL ORDER BY id DESC LIMIT 1"
    reply = json.loads(sqlite3.connect(file).execute(last).fetchone()[0])
    assert len(reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 20
