"""The rules of the house that a machine can hold."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERBS = {
    *("prepare", "label", "train", "evaluate", "measure", "select", "report", "stage"),
    *("export", "vary", "halve", "propose", "prove", "plan"),
    "artifacts",  # of trainings, in Prefect
    *("findings", "pages"),  # what `report` writes, from references to what the stages made
}
SOURCES = [
    path for name in ("flows", "distill_tasks", "registry") for path in ROOT.glob(f"{name}/**/*.py")
]
MLFLOW_NOUNS = {"tracking", "logged_models", "served_pyfunc"}


def imported(path):
    """Return every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def floor(module):
    """Return how high a module of ours stands; None for anybody else's."""
    top, _, rest = module.partition(".")
    if top == "distill_tasks":
        return 1 if rest.split(".")[0] in VERBS else 0
    return {"registry": 2, "flows": 3}.get(top)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    mine = floor(".".join(path.relative_to(ROOT).with_suffix("").parts))
    higher = [module for module in imported(path) if (floor(module) or 0) > mine]
    assert not higher


@pytest.mark.parametrize(
    "path", list(ROOT.glob("distill_tasks/**/*.py")), ids=lambda path: path.stem
)
def test_nouns_know_neither_prefect_nor_mlflow(path):
    if path.stem in VERBS | MLFLOW_NOUNS:
        return
    assert not [name for name in imported(path) if name.split(".")[0] in ("prefect", "mlflow")]


LOADERS = {"from_pretrained", "from_config", "load_dataset", "pipeline"}
"""Calls of libraries that may run code they find beside what they load."""


@pytest.mark.parametrize(
    "path",
    [*SOURCES, *ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/**/*.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_that_is_loaded_brings_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called.split(".")[-1] not in LOADERS or "Embedding" in called:  # torch's own, of tensors
            continue
        said = {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert said.get("trust_remote_code") == "False", f"{called} in line {node.lineno}"


def test_no_flow_is_named_like_a_library():
    """Prefect puts the folder of a flow first on the path, where such a file would hide it."""
    names = {path.stem for path in ROOT.glob("flows/*.py")}
    assert not names & {"datasets", "evaluate", "registry", "prefect", "mlflow", "torch", "select"}


def test_every_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(lines) > 100
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+]+", line) for line in lines)


def test_the_demo_is_installed_by_hash():
    wanted = [
        line
        for line in (ROOT / "requirements-demo.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all("==" in line and "--hash=sha256:" in line for line in wanted)


def test_every_make_target_in_the_readme_is_there():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text())
    assert set(named) <= set(targets)


def test_every_command_in_the_readme_is_there():
    from flows.cli import app

    named = set(
        re.findall(r"^    potstill ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    assert named == {"check", "plan", "run", "label", "compare", "promote", "rollback"}
    assert named <= set(app)


def test_the_configuration_in_the_readme_is_valid():
    import yaml

    from distill_tasks.config import parse_config

    written = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert parse_config(yaml.safe_load(written[1]), "README.md").students
