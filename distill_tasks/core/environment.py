"""Where a run ran: what its figures and the bytes of its students depend on beside its input."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "potstill",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "evaluate",
    "numpy",
    "scikit-learn",
    "pandas",
    "onnxruntime",
    "optuna",
    "mlflow",
    "prefect",
)
SERVING = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")
"""Those of them that answers run on."""
ARITHMETIC = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "sve", "bf16", "i8mm")
"""How the names of those processor flags begin that change which arithmetic is done."""
SETTINGS = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "MKL_NUM_THREADS",
    "THP_MEM_ALLOC_ENABLE",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    "TOKENIZERS_PARALLELISM",
    "CUDA_VISIBLE_DEVICES",
)
"""Variables that say how threads, memory and kernels are used; no other is read."""


@dataclass(frozen=True)
class Environment:
    """A machine and what is installed on it."""

    python: str
    platform: str
    processor: str
    """Its name, and how many of its cores this process may use."""
    processor_flags: tuple[str, ...]
    """Those that change which arithmetic is done, as ``amx_bf16``."""
    settings: dict[str, str]
    """Variables of `SETTINGS` that are set."""
    packages: dict[str, str]
    """Versions by name, of `PACKAGES` that are installed."""


def read_environment() -> Environment:
    """Return the environment of this process, without loading what is heavy."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        processor=describe_machine(),
        processor_flags=_read_flags(),
        settings={name: os.environ[name] for name in SETTINGS if name in os.environ},
        packages=list_versions(PACKAGES),
    )


def describe_machine() -> str:
    """Return the processor's name and how many of its cores this process may use."""
    names = _read_processor("model name") or [platform.processor()]
    usable = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(usable(0)) if usable else os.cpu_count()
    return f"{names[0]}, {cores} cores"


def list_versions(packages: Sequence[str] = SERVING) -> dict[str, str]:
    """Return the versions of packages by name, where they are installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process meanwhile."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _read_flags() -> tuple[str, ...]:
    lines = [*_read_processor("flags"), *_read_processor("Features")]
    flags = {flag for line in lines for flag in line.split()}
    return tuple(sorted(flag for flag in flags if flag.startswith(ARITHMETIC)))


def _read_processor(key: str) -> list[str]:
    """Return what Linux says of every core under a key, nothing elsewhere."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return [value.strip() for name, value in pairs if name.strip() == key]
