"""What README and documentation show is what the software does."""

import ast
import functools
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from distill_tasks.config import parse_config
from flows.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]
BASE = {
    "name": "tickets",
    "data": {"train": "tickets.csv", "held_out": "test.csv"},
    "teacher": {"kind": "finetune", "base": "path/to/encoder"},
    "students": [{"family": "bag_of_words"}],
    "registry": {"model": "tickets"},
}
"""What a fragment of a configuration is completed with."""
FOREIGN = {".", "cd", "curl", "export", "git", "mlflow", "pip", "python", "ray"}
"""Commands of others, which are taken as they are."""


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def find_blocks(path):
    """Return the fenced blocks of a page."""
    text = path.read_text(encoding="utf-8")
    for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(str(path.relative_to(ROOT)), line, found[2], found[3])


BLOCKS = [block for path in PAGES for block in find_blocks(path)]


def blocks(language):
    """Return a test's parameters: the blocks in a language."""
    return pytest.mark.parametrize(
        "block", [block for block in BLOCKS if block.language == language], ids=str
    )


def load_hook(name):
    """Return a module that writes pages of the site."""
    path = ROOT / "docs" / "hooks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"hook_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_block_says_its_language():
    known = {"bash", "json", "python", "text", "toml", "yaml"}
    assert not [str(block) for block in BLOCKS if block.language not in known]


@blocks("yaml")
def test_configurations_are_read_whole_or_as_parts_of_one(block):
    written = yaml.safe_load(block.code)
    if "jobs" in written:  # of CI, not ours
        steps = [step for job in written["jobs"].values() for step in job["steps"]]
        for command in filter(None, (step.get("run") for step in steps)):
            check_command(command)
        return
    if {"deployments", "work_pool"} & written.keys():  # Prefect's; other tests look at them
        return
    assert parse_config(complete(BASE, written), str(block))


def complete(base, part):
    """Return settings with a part of them replaced; a teacher is replaced as a whole."""
    merged = dict(base)
    for key, value in part.items():
        inner = merged.get(key)
        whole = key == "teacher" or not isinstance(value, dict) or not isinstance(inner, dict)
        merged[key] = value if whole else complete(inner, value)
    return merged


@blocks("json")
def test_json_can_be_read(block):
    json.loads(block.code)


@blocks("python")
def test_python_compiles_and_imports_what_is_there(block):
    tree = ast.parse(block.code, filename=str(block))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert not [one.name for one in node.names if not hasattr(module, one.name)]
        elif isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(one.name) for one in node.names)


NEEDS_A_RUN = re.compile(r"load_model|load_config\(|set_tracking_uri")
RUNNABLE = [b for b in BLOCKS if b.language == "python" and not NEEDS_A_RUN.search(b.code)]
"""Blocks that need no champion, no server and no configuration of the reader's."""


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_python_that_needs_nothing_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.code, str(block), "exec"), {"__name__": "block"})


@blocks("bash")
def test_commands_and_their_options_are_there(block):
    for line in block.code.replace("\\\n", " ").splitlines():
        check_command(line)


def check_command(line):
    """Fail for a command that is not ours, not known, or not given as it takes its arguments."""
    written = re.sub(r"\"\$\(.*\)\"", "NESTED", line)
    words = shlex.split(written, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        return
    command, arguments = Path(words[0]).name, words[1:]
    if command == "potstill":
        if arguments != ["--help"]:
            app.parse_args(arguments, exit_on_error=False, print_error=False)
    elif command == "make":
        assert {word for word in arguments if "=" not in word} <= make_targets()
    elif command == "prefect":
        check_prefect([word for word in arguments if word != "--no-prompt"])
    else:
        assert command in FOREIGN or words[0] == ".", f"nobody knows {command!r}"


@functools.cache
def make_targets():
    """Return what `make` can make."""
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_prefect(arguments):
    """Fail for a command that Prefect does not know, or options that it does not take."""
    prefect = importlib.import_module("prefect.cli._app")
    importlib.import_module("prefect.cli")
    prefect._app.parse_args(arguments, exit_on_error=False, print_error=False)


def test_every_make_target_that_is_named_is_there():
    named = {name for path in PAGES for name in re.findall(r"`make ([a-z-]+)", path.read_text())}
    assert {"demo", "docs", "readme", "schema"} < named <= make_targets()


def test_the_readme_names_every_command_that_a_person_needs():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^potstill ([a-z]+)", text, re.MULTILINE))
    assert set(app) - named <= {"schema", "--help", "--version", "-h"}


def test_the_readme_shows_ten_lines_of_configuration_on_its_first_screen():
    first, *_ = [block for block in BLOCKS if block.page == "README.md" if block.language == "yaml"]
    assert len(first.code.splitlines()) <= 10
    assert first.line < 45


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_to_a_file_is_dead(path):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]


def test_the_page_of_the_configuration_has_every_key_with_its_unit_and_example():
    page = load_hook("configuration")
    keys, examples = page.list_keys(), page.read_examples()
    schema = page.read_schema()
    families = {name: part for name, part in schema["$defs"].items() if name.endswith("Space")}
    for name, part in families.items():  # the same keys as students, so shown once
        student = schema["$defs"][name.replace("Space", "Student")]
        assert set(part["properties"]) == set(student["properties"])
    shown = {(key.section, key.name) for key in keys}
    models = {name: part for name, part in schema["$defs"].items() if name not in families}
    wanted = {(name, key) for name, part in models.items() for key in part.get("properties", {})}
    assert shown == wanted | {("", key) for key in schema["properties"]}
    absent = [k.path for k in keys if not page.show_example(k, examples) and not k.is_section]
    assert not absent, "write an example of each into docs/hooks/examples.yaml"
    assert set(examples) <= {key.path for key in keys}, "examples of keys that are not there"
    quantities = [key for key in keys if is_quantity(key.schema)]
    without = {key.name for key in quantities if not page.find_unit(key)}
    assert without <= page.WITHOUT_UNIT, "name their units in docs/hooks/configuration.py"
    written = page.write_page()
    assert all(f"| `{key.name}` |" in written for key in keys)
    assert all(key.schema["description"].split("|")[0] in written for key in keys)


def is_quantity(field):
    """Return whether a key of the schema takes numbers."""
    ways = [field, *field.get("anyOf", [])]
    return any(way.get("type") in ("number", "integer") for way in ways)


def place_in_api(inner, name, value):
    """Return a teacher of kind api in which a key has a value."""
    licence = {"name": "x", "url": "https://example.com", "may_train": "yes"}
    parts = {"licence": licence, "prices": {"input": 1, "output": 1}, "prompt": {}}
    for section in inner:
        parts[section] = parts[section] | {name: value}
    own = {} if inner else {name: value}
    return {"kind": "api", "base_url": "https://a/v1", "model": "large", **parts, **own}


def place(path, value):
    """Return the part of a configuration in which a key of the page has a value."""
    *sections, name = path.split(".")
    kinds = {"finetune", "transformers", "saved", "hub"}
    if path == "data.text_template":
        return {"data": {"text_column": ["subject", "body"], name: value}}
    match sections:
        case ["students", family]:
            needed = {"layers": {"layers": 1}, "pretrained": {"model": "path/to/encoder"}}
            return {"students": [{"family": family, **needed.get(family, {}), name: value}]}
        case ["search", "optuna", "spaces"]:
            ends = {"low": 0.001, "high": 0.1, name: value}
            spaces = [{"family": "static", "learning_rate": ends}]
            return {"search": {"optuna": {"trials": 1, "spaces": spaces}}}
        case ["search", "optuna"]:
            spaces = [{"family": "bag_of_words"}]
            return {"search": {"optuna": {"trials": 1, "spaces": spaces, name: value}}}
        case ["teacher", "saved"]:
            return {"teacher": {"kind": "saved", "path": "a.parquet", name: value}}
        case ["teacher", "causal_lm", *inner]:
            part = {name: value}
            for section in reversed(inner):
                part = {section: part}
            return {"teacher": {"kind": "causal_lm", "model": "folder", **part}}
        case ["teacher", "callable"]:
            return {"teacher": {"kind": "callable", "function": "a:b", name: value}}
        case ["teacher", "mlflow"]:
            return {"teacher": {"kind": "mlflow", "model": "models:/a/1", name: value}}
        case ["teacher", "ensemble", "members"]:
            saved = {"kind": "saved", "path": "a.parquet"}
            members = [{"teacher": saved}, {"teacher": saved, name: value}]
            return {"teacher": {"kind": "ensemble", "members": members}}
        case ["teacher", "ensemble"]:
            return {"teacher": {"kind": "ensemble", name: value}}
        case ["teacher", "transformers"]:
            return {"teacher": {"kind": "transformers", "model": "folder", name: value}}
        case ["teacher", "finetune"]:
            return {"teacher": {"kind": "finetune", "base": "folder", name: value}}
        case ["teacher", "api", *inner]:
            return {"teacher": place_in_api(inner, name, value)}
        case ["data", "train", "hub"]:
            table = {"hub": "a/b", "revision": "c", "split": "train", name: value}
            return {"data": {"train": table}}
        case ["execution", kind]:
            return {"execution": {"kind": kind, name: value}}
        case ["cost"]:
            return {"cost": {"machine_hour": 1, name: value}}
    part = {name: value}
    for section in reversed([one for one in sections if one not in kinds]):
        part = {section: part}
    return part


def test_every_example_of_a_key_is_allowed():
    page = load_hook("configuration")
    for path, value in page.read_examples().items():
        part = place(path, value)
        assert parse_config(complete(BASE, part), path)


@pytest.mark.parametrize("command", [[], ["run"]], ids=["potstill", "run"])
def test_the_page_of_the_command_line_says_what_the_command_says(command):
    page = load_hook("command_line")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    said = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    title = " ".join(["potstill", *command])
    assert f"## {title}\n\n```text\n{said}\n```\n" in page.write_sections()


def test_every_command_has_its_section():
    page = load_hook("command_line")
    titles = re.findall(r"^## potstill ?(\w*)$", page.write_sections(), re.MULTILINE)
    assert set(titles) == {"", *(name for name in app if not name.startswith("-"))}


def test_the_page_of_python_has_every_public_name():
    import distill_tasks

    text = (ROOT / "docs/python.md").read_text()
    shown = re.findall(r"^::: distill_tasks\.(\w+)$", text, re.MULTILINE)
    assert sorted(shown) == sorted(distill_tasks.__all__)


def test_the_page_of_schedules_is_filled_in_from_the_readme():
    page = load_hook("repository")
    path = ROOT / "docs/how-to/schedule.md"
    filled = page.fill_in(path.read_text(encoding="utf-8"), "how-to/schedule.md")
    assert "prefect --no-prompt deploy --all" in filled
    assert page.find_outside(filled, "how-to/schedule.md")["prefect.yaml"] == "../../prefect.yaml"


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_nobody_else_for_anything(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = [*(tmp_path / "site").glob("**/*.html")]
    assert {"index.html", "configuration.html", "command_line.html"} < {p.name for p in pages}
    assets = re.compile(r"<(?:script|img)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:")
    assert not [path.name for path in pages if assets.search(path.read_text(encoding="utf-8"))]
