"""Tests of process.py: imports change nothing in a process, whatever starts one sets it up."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill_tasks.core import process

ROOT = Path(__file__).parents[3]
WANTED = process._ENVIRONMENT
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("distill_tasks", "registry")
    for path in sorted(ROOT.glob(f"{package}/**/*.py"))
]
NO_ENTRIES = {"labelling_client", "peers", "promise_error_rates", "verdict_error_rates", "write"}
"""Benchmarks that are no scripts, or load nothing that reads the environment."""

IMPORT_ALL = """
import ast, importlib, json, logging, os, sys, warnings

def look():
    loggers = [logging.getLogger(), logging.getLogger("potstill")]
    return {
        "environment": dict(os.environ),
        "warnings": list(map(str, warnings.filters)),
        "logging": [[str(one.handlers), one.level, one.propagate] for one in loggers],
        "threads": sys.modules["torch"].get_num_threads(),
        "path": sys.path,
    }

theirs, ours = json.load(sys.stdin)
for statement in theirs:
    exec(statement)
before = look()
for module in ours:
    importlib.import_module(module)
after = look()
print(json.dumps({name: [before[name], after[name]] for name in after}))
"""
"""Imports what our modules import of others, then our modules, and looks what these changed."""

WATCH = """
import json, os, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("prefect", "mlflow", "torch", "transformers", "huggingface_hub"):
            print(json.dumps(dict(os.environ)), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script until it imports the first library that reads the environment."""

ENTRIES = {
    "the command line": ("flows/cli.py", "check", "examples/reuters/distill.yaml"),
    **{f"flow {name}": (f"flows/{name}.py",) for name in ("distill", "label", "promote")},
    **{
        f"benchmark {path.stem}": (f"benchmarks/{path.name}",)
        for path in sorted(ROOT.glob("benchmarks/*.py"))
        if path.stem not in NO_ENTRIES
    },
    "the example's readme": ("examples/reuters/readme.py",),
}


def read_source(module):
    path = ROOT / module.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


def list_imports_of_others():
    """Return every statement at the top of our modules that imports what is not ours."""
    statements = {}
    for module in MODULES:
        for node in ast.parse(read_source(module)).body:
            named = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if named and named[0].split(".")[0] not in ("distill_tasks", "registry", "__future__"):
                statements[ast.unparse(node)] = None
    return list(statements)


def run(code, *arguments, given=None, environment=None):
    """Run code in a fresh Python and return what it printed last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment or bare_environment(),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def bare_environment(**own):
    """Return this environment as it was before this process was set up, with a user's own."""
    kept = {name: value for name, value in os.environ.items() if name not in WANTED}
    return kept | {"PYTHONPATH": str(ROOT)} | own


def test_importing_any_module_changes_nothing_in_the_process():
    changes = run(IMPORT_ALL, given=[list_imports_of_others(), MODULES])
    for what, (before, after) in changes.items():
        assert after == before, what


def test_no_module_calls_anything_for_its_effect_when_it_is_imported():
    calling = {
        module
        for module in MODULES
        for node in ast.parse(read_source(module)).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    }
    mlflow_runs_it = "distill_tasks.serving.served_pyfunc"
    assert calling == {mlflow_runs_it}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_whatever_starts_a_process_sets_it_up_before_it_loads_a_library(entry):
    found = run(WATCH, *entry)
    assert {name: found.get(name) for name in WANTED} == WANTED


def test_what_the_user_has_set_stays():
    found = run(WATCH, "flows/label.py", environment=bare_environment(GOMP_SPINCOUNT="7"))
    assert {name: found.get(name) for name in WANTED} == WANTED | {"GOMP_SPINCOUNT": "7"}


def test_this_process_is_set_up():
    assert set(WANTED) <= set(os.environ)
