"""The footprint of a served model: packages, memory, and the time to its first answer."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from distill_tasks.core.errors import PotstillError
from distill_tasks.measuring.latency import thread_settings
from distill_tasks.serving import served_model
from distill_tasks.serving.served_model import ABOUT

REQUIREMENTS = {
    "transformers": ("numpy", "safetensors", "torch", "transformers"),
    "onnx": ("numpy", "onnxruntime", "tokenizers"),
    "static": ("numpy", "tokenizers"),
    "bag_of_words": ("numpy",),
}
"""The packages that each runtime of `served_model` imports."""

PROBE = """
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location(
    "served_model", sys.argv[1], submodule_search_locations=[os.path.dirname(sys.argv[1])]
)
served_model = importlib.util.module_from_spec(spec)
sys.modules["served_model"] = served_model
spec.loader.exec_module(served_model)
served_model.open_model(sys.argv[2]).answer([json.load(sys.stdin)])
print("answered", flush=True)
try:
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
except (OSError, StopIteration):
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak)
"""


@dataclass(frozen=True)
class Footprint:
    """What serving one model takes, without mlflow."""

    installed_mb: float
    """Size of the packages it imports and of their dependencies, in 10⁶ bytes."""
    cold_start_s: float
    """Seconds from the start of Python to the first answer."""
    resident_mb: float
    """Peak resident memory after the first answer, in 10⁶ bytes."""

    @property
    def values(self) -> dict[str, float]:
        """The figures by metric name."""
        return {f"serving/{name}": value for name, value in self.to_json().items()}

    def to_json(self) -> dict[str, Any]:
        """Return the values as plain data for JSON."""
        return asdict(self)


def measure_footprint(folder: Path, text: str, threads: int) -> Footprint:
    """Measure a served folder in a separate Python process that answers one text."""
    start = time.perf_counter()
    command = [sys.executable, "-P", "-c", PROBE, served_model.__file__, str(folder)]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(  # noqa: S603  # our own code on our own folder
            command,
            env=os.environ | thread_settings(threads),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(text))
        process.stdout.readline()
        seconds = time.perf_counter() - start
        peak = process.stdout.read()
        code = process.wait()
        complaints.seek(0)
        lines = complaints.read().strip().splitlines() or [f"it ended with code {code}"]
    if code:
        raise PotstillError(f"{folder} could not be served in a Python of its own: {lines[-1]}.")
    installed = measure_installed_mb(read_requirements(folder))
    return Footprint(installed, seconds, int(peak) / 1e6)


def read_requirements(folder: Path) -> tuple[str, ...]:
    """Return the packages needed to serve a student's folder, without mlflow."""
    runtime = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["runtime"]
    return REQUIREMENTS[runtime]


def pin(names: Sequence[str]) -> list[str]:
    """Return requirements that pin packages to the versions installed here."""
    return [f"{name}=={version(name).split('+')[0]}" for name in names]


@functools.cache
def measure_installed_mb(names: tuple[str, ...]) -> float:
    """Return the size in 10⁶ bytes of installed packages and all their dependencies."""
    found: dict[str, float] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:  # required elsewhere, as on another system
            found[name] = 0.0
            continue
        files = [Path(str(file.locate())) for file in package.files or ()]
        found[name] = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
        required = map(Requirement, package.requires or ())
        waiting += [r for r in required if not r.marker or r.marker.evaluate({"extra": ""})]
    return sum(found.values())
