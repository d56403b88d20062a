"""The rules of the house that a machine can hold."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from distill_tasks.students import Student, StudentConfig
from distill_tasks.teachers import TeacherConfig

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("core", "problems", "data", "scoring", "serving", "training", "llm", "teachers", "students"),
    *("execution", "measuring", "plugins", "config", "results", "tracking", "reporting"),
    *("stages", "registry", "flows"),
)
"""The packages in the order of their imports: each uses those before it, and no other."""
SOURCES = [
    path for name in ("flows", "distill_tasks", "registry") for path in ROOT.glob(f"{name}/**/*.py")
]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
}
USERS = {
    "prefect": {"plugins", "stages", "flows"},
    "mlflow": {"plugins", "teachers", "tracking", "registry", "serving"},
    "torch": set(ROOMS) - {"core", "problems", "data", "scoring"},
}
"""Who imports a library."""


def imported(path):
    """Return every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            inner = {f"{module}.{alias.name}" for alias in node.names}
            yield from inner & MODULES.keys() or {module}


def roots(path):
    """Return the packages that a file imports from."""
    return {name.split(".")[0] for name in imported(path)}


def room(module):
    """Return the package of one of our modules; None for anybody else's."""
    parts = module.split(".")
    named = parts[1] if parts[0] == "distill_tasks" and len(parts) > 1 else parts[0]
    return named if named in ROOMS else None


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    if room(module) is None:  # `distill_tasks` itself
        return
    mine = ROOMS.index(room(module))
    others = [other for other in imported(MODULES[module]) if room(other)]
    assert not [other for other in others if ROOMS.index(room(other)) > mine]


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "stages"])
def test_no_stage_imports_another(module):
    shared = {
        f"distill_tasks.stages.{name}" for name in ("stage", "progress_artifacts", "flow_run")
    }
    others = {name for name in imported(MODULES[module]) if room(name) == "stages"}
    assert others <= shared


def test_no_imports_go_in_a_circle():
    left = {name: set(imported(path)) & MODULES.keys() for name, path in MODULES.items()}
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left


def test_the_house_has_few_floors():
    """A package stands one floor above the highest of those that it imports."""
    used = {name: set() for name in ROOMS}
    for module, path in MODULES.items():
        if here := room(module):
            used[here] |= {room(other) for other in imported(path)} - {None, here}
    floors = {}
    for name in ROOMS:
        floors[name] = 1 + max((floors[other] for other in used[name]), default=0)
    assert floors["flows"] == max(floors.values()) <= 14


def test_the_flow_is_read_in_one_screen():
    tree = ast.parse((ROOT / "flows/distill.py").read_text())
    (flow,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert flow.end_lineno - flow.lineno < 60


ANY_NUMBER = ("digest(",)
"""Calls that take any number of things alike."""


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("flows/*.py"), *ROOT.glob("distill_tasks/stages/*.py")],
    ids=lambda path: path.stem,
)
def test_no_call_hands_on_more_than_four_things_by_position(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    long = [ast.unparse(call) for call in calls if len(call.args) > 4]
    assert not [call for call in long if not call.startswith(ANY_NUMBER)]


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_longer_than_350_lines(module):
    assert len(MODULES[module].read_text().splitlines()) <= 350


@pytest.mark.parametrize("module", MODULES)
def test_libraries_are_imported_by_the_rooms_that_are_theirs(module):
    libraries = roots(MODULES[module])
    for library, rooms in USERS.items():
        assert library not in libraries or room(module) in rooms


def test_of_what_is_served_the_wrapper_alone_imports_mlflow():
    served = [name for name in MODULES if room(name) == "serving"]
    users = [name for name in served if "mlflow" in roots(MODULES[name])]
    assert users == ["distill_tasks.serving.served_pyfunc"]


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "registry"])
def test_the_registry_reads_findings_and_no_report(module):
    """It writes one: that of the challenger beside the champion, without which none is promoted."""
    reports = {name for name in imported(MODULES[module]) if room(name) == "reporting"}
    assert not reports or module == "registry.comparison"
    assert "distill_tasks.stages.report" not in imported(MODULES[module])


@pytest.mark.parametrize("name", ["served_model", "served_text", "served_pyfunc"])
def test_what_is_served_imports_nothing_of_this_project(name):
    assert not [
        module for module in imported(MODULES[f"distill_tasks.serving.{name}"]) if room(module)
    ]


@pytest.mark.parametrize("name", ROOMS[:-2])
def test_every_room_says_what_it_is_for(name):
    inside = MODULES[f"distill_tasks.{name}"]
    assert ast.get_docstring(ast.parse(inside.read_text()))


def test_nobody_asks_which_kind_a_teacher_is():
    """What a teacher can do is asked of the protocol, so that a new kind is one file."""
    kinds = {kind.__name__ for kind in get_args(get_args(TeacherConfig)[0])}
    others = [path for name, path in MODULES.items() if room(name) != "teachers"]
    assert not {path.name: found for path in others if (found := names(path) & kinds)}


def test_nobody_asks_which_family_a_student_is():
    """What is wanted of a student is asked of the protocol, so that a new family is one file."""
    parents = {one for family in get_args(get_args(StudentConfig)[0]) for one in family.__mro__}
    families = {one.__name__ for one in parents if issubclass(one, Student) and one is not Student}
    assert {"BagOfWordsStudent", "TransformerSettings"} < families
    others = [path for name, path in MODULES.items() if room(name) != "students"]
    assert not {path.name: found for path in others if (found := names(path) & families)}


def names(path):
    """Return every name that a file mentions: of variables, attributes and imports."""
    tree = ast.walk(ast.parse(path.read_text()))
    mentioned = [getattr(node, field, None) for node in tree for field in ("id", "attr", "name")]
    return {name for name in mentioned if name}


TESTS = [
    path
    for room in ("distill_tasks", "registry", "flows")
    for path in (ROOT / "tests" / room).glob("**/test_*.py")
]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_file_stands_for_a_module_of_its_package(path):
    module = path.relative_to(ROOT / "tests").with_name(path.name.removeprefix("test_"))
    assert (ROOT / module).is_file()


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
