import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution, files, version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from samples import CLASSES

from distill_tasks.core.errors import PotstillError
from distill_tasks.measuring import footprint
from distill_tasks.measuring.footprint import (
    REQUIREMENTS,
    Footprint,
    measure_footprint,
    measure_installed_mb,
    pin,
    read_requirements,
)
from distill_tasks.serving import served_model
from distill_tasks.serving.served_model import ABOUT, RUNTIMES


@pytest.fixture(scope="module")
def words(light_folders):
    return measure_footprint(light_folders["bag_of_words"], "the puppy", 1)


def test_a_cold_start_is_part_of_the_time_that_measuring_takes(light_folders):
    start = time.perf_counter()
    found = measure_footprint(light_folders["bag_of_words"], "the puppy", 1)
    assert 0 < found.cold_start_s < time.perf_counter() - start


def test_a_cold_start_ends_with_the_first_answer(light_folders, monkeypatch):
    moments = iter([100.0, 100.25])
    monkeypatch.setattr(footprint, "time", SimpleNamespace(perf_counter=lambda: next(moments)))
    found = measure_footprint(light_folders["bag_of_words"], "the puppy", 1)
    assert found.cold_start_s == 0.25


def test_serving_a_small_model_takes_little(words):
    assert 10 < words.resident_mb < 150
    assert words.installed_mb == measure_installed_mb(("numpy",))


def test_a_model_with_larger_weights_takes_that_much_more_memory(words, light_folders, tmp_path):
    folder = Path(shutil.copytree(light_folders["bag_of_words"], tmp_path / "large"))
    with np.load(folder / "weights.npz") as file:
        weights = dict(file)
    unused = np.ones((5_000_000, len(CLASSES)), np.float32)
    weights["output"] = np.concatenate([weights["output"], unused])
    np.savez(folder / "weights.npz", **weights)
    large = measure_footprint(folder, "the puppy", 1)
    assert large.resident_mb - words.resident_mb == pytest.approx(unused.nbytes / 1e6, rel=0.015)
    assert large.installed_mb == words.installed_mb


def test_a_footprint_names_its_figures():
    takes = Footprint(installed_mb=71.0, cold_start_s=0.3, resident_mb=29.0)
    assert takes.to_json() == {"installed_mb": 71.0, "cold_start_s": 0.3, "resident_mb": 29.0}
    assert takes.values == {
        "serving/installed_mb": 71.0,
        "serving/cold_start_s": 0.3,
        "serving/resident_mb": 29.0,
    }


def test_a_folder_that_cannot_be_opened_is_named_with_the_reason(light_folders, tmp_path):
    with pytest.raises(PotstillError) as caught:
        measure_footprint(tmp_path / "nowhere", "the puppy", 1)
    assert str(caught.value).startswith(f"{tmp_path / 'nowhere'} could not be served")
    assert "FileNotFoundError" in str(caught.value)
    assert "\n" not in str(caught.value)

    broken = Path(shutil.copytree(light_folders["bag_of_words"], tmp_path / "broken"))
    (broken / "weights.npz").unlink()
    with pytest.raises(PotstillError, match=r"broken could not be served .*weights\.npz"):
        measure_footprint(broken, "the puppy", 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_memory_is_read_whenever_it_is_printed(light_folders, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    for _ in range(5):
        assert measure_footprint(light_folders["bag_of_words"], "the puppy", 1).resident_mb > 10


@pytest.mark.parametrize(
    "text",
    ["\x00\x07 kitten", "puppy leash " * 20_000, "😀 fin\n", "--help"],
    ids=["control", "long", "emoji", "option"],
)
def test_odd_first_texts_are_answered_too(light_folders, text):
    assert measure_footprint(light_folders["bag_of_words"], text, 1).resident_mb > 10


@pytest.fixture
def disturb(tmp_path, monkeypatch):
    """Have the Python that serves do something before all else; `-P` tells it from others."""

    def disturb(code):
        lines = "import os, sys", f"if '-P' in sys.orig_argv: {code}"
        (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return disturb


@pytest.mark.timeout(20)
def test_a_library_may_complain_at_length(light_folders, disturb):
    disturb("sys.stderr.write('warning ' * 20_000)")
    assert measure_footprint(light_folders["bag_of_words"], "the puppy", 1).resident_mb > 10


def test_what_dies_without_a_word_is_named_too(light_folders, disturb):
    disturb("os.kill(os.getpid(), 9)")  # as the kernel does when memory runs out
    with pytest.raises(PotstillError, match=r"bag_of_words.* could not be served .*\."):
        measure_footprint(light_folders["bag_of_words"], "the puppy", 1)


SERVE_ALONE = """
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location(
    "served_model", sys.argv[1], submodule_search_locations=[os.path.dirname(sys.argv[1])]
)
served_model = importlib.util.module_from_spec(spec)
sys.modules["served_model"] = served_model
spec.loader.exec_module(served_model)
(answer,) = served_model.open_model(sys.argv[2]).answer(["the puppy"])
print(json.dumps([answer.label, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    ("runtime", "allowed"), [("bag_of_words", set()), ("static", {"tokenizers"})]
)
def test_light_models_import_no_heavy_package(light_folders, runtime, allowed):
    command = [sys.executable, "-P", "-c", SERVE_ALONE, served_model.__file__]
    command.append(str(light_folders[runtime]))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    label, imported = json.loads(done.stdout)
    assert label in CLASSES
    heavy = {"torch", "transformers", "onnxruntime", "tokenizers", "safetensors", "scipy"}
    ours = {"distill_tasks", "mlflow", "pydantic"}
    assert set(imported) & (heavy | ours) == allowed
    assert set(REQUIREMENTS[runtime]) <= set(imported)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_has_requirements(runtime, tmp_path):
    (tmp_path / ABOUT).write_text(json.dumps({"runtime": runtime, "classes": ["a", "b"]}))
    names = read_requirements(tmp_path)
    assert names == REQUIREMENTS[runtime]
    assert "numpy" in names
    assert "mlflow" not in names


def test_requirements_are_of_runtimes_alone():
    assert set(REQUIREMENTS) == set(RUNTIMES)


def install(root, name, size=0, requires=(), version="1.0"):
    """Write a package of one file, as an installer leaves it."""
    about = root / f"{name}-{version}.dist-info"
    about.mkdir()
    (root / f"{name}.py").write_bytes(b"#" * size)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += ["Provides-Extra: more", *(f"Requires-Dist: {line}" for line in requires)]
    (about / "METADATA").write_text("\n".join(lines) + "\n")
    (about / "RECORD").write_text(f"{name}.py,,\n{name}-gone.py,,\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    measure_installed_mb.cache_clear()  # names are used again, for other packages
    return tmp_path


def test_packages_are_pinned_to_what_is_installed_without_local_parts():
    pinned = pin(["torch", "numpy", "tokenizers"])
    assert [Requirement(line).name for line in pinned] == ["torch", "numpy", "tokenizers"]
    assert pinned[1] == f"numpy=={np.__version__}"
    assert not any("+" in line for line in pinned)  # torch may be 2.13.0+cpu, which no index has
    for line in pinned:
        requirement = Requirement(line)
        assert requirement.specifier.contains(version(requirement.name))


def test_local_parts_of_versions_are_left_out(site):
    install(site, "potstill_built", version="1.2.3rc1+cpu.4")
    install(site, "potstill_plain", version="0.7")
    pinned = pin(["potstill-plain", "potstill-built"])
    assert pinned == ["potstill-plain==0.7", "potstill-built==1.2.3rc1"]


def list_closure(name, seen):
    """Collect a package and all it requires here, by its canonical names."""
    name = canonicalize_name(name)
    if name not in seen:
        seen.add(name)
        for line in distribution(name).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                list_closure(requirement.name, seen)
    return seen


@pytest.mark.parametrize("names", [("numpy",), ("numpy", "tokenizers")])
def test_installed_megabytes_are_those_of_the_files_of_all_that_is_required(names):
    closure = set().union(*(list_closure(name, set()) for name in names))
    paths = {Path(str(path.locate())).resolve() for name in closure for path in files(name)}
    expected = sum(path.stat().st_size for path in paths if path.is_file())
    assert measure_installed_mb(names) == pytest.approx(expected / 1e6, rel=1e-3)


def test_what_two_packages_require_counts_once(site):
    install(site, "potstill_top", 1_000_000, ["potstill-left", "potstill_right (>=1)"])
    install(site, "potstill_left", 200_000, ["Potstill-Base"])
    install(site, "potstill_right", 30_000, ["potstill_base; python_version > '3'"])
    install(site, "potstill_base", 4_000, ["potstill_top"])  # in a circle
    assert measure_installed_mb(("potstill_top",)) == pytest.approx(1.234)
    assert measure_installed_mb(("potstill-base", "potstill_left")) == pytest.approx(1.234)


def test_a_name_is_the_same_with_dots_and_lines(site):
    install(site, "potstill_top", 1_000_000, ["potstill-left", "potstill.base"])
    install(site, "potstill_left", 200_000, ["Potstill__Base"])
    install(site, "potstill_base", 30_000)
    assert measure_installed_mb(("potstill.top",)) == pytest.approx(1.23)


def test_what_is_not_required_here_does_not_count(site):
    extras = ["potstill-extra; extra == 'more'", "potstill-extra; sys_platform == 'plan9'"]
    install(site, "potstill_top", 1_000_000, [*extras, "potstill-not-installed"])
    install(site, "potstill_extra", 500_000, [])
    assert measure_installed_mb(("potstill_top",)) == pytest.approx(1.0)


COUNT = 6
edges = st.sets(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)))
sizes = st.lists(st.integers(0, 5_000), min_size=COUNT, max_size=COUNT)


@given(edges, sizes, st.sets(st.integers(0, COUNT - 1), min_size=1))
@example({(0, 1), (0, 2), (1, 3), (2, 3), (3, 0)}, [1, 20, 300, 4_000, 5_000, 5_000], {0})
@settings(deadline=None, max_examples=30)
def test_installed_megabytes_are_those_of_all_that_can_be_reached(edges, sizes, wanted):
    reached = np.eye(COUNT, dtype=int)
    for start, end in edges:
        reached[start, end] = 1
    reached = np.linalg.matrix_power(reached, COUNT) > 0
    there = reached[sorted(wanted)].any(axis=0)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for number, size in enumerate(sizes):
            requires = [f"potstill-node{end}" for start, end in edges if start == number]
            install(Path(folder), f"potstill_node{number}", size, requires)
        measure_installed_mb.cache_clear()
        found = measure_installed_mb(tuple(f"potstill-node{number}" for number in wanted))
    assert found == pytest.approx(np.array(sizes)[there].sum() / 1e6)
