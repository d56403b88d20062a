"""Where a run ran: what its figures and its students' bytes depend on besides its input."""

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
"""The packages that answer texts once a model is served."""
ARITHMETIC = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "sve", "bf16", "i8mm")
"""Prefixes of the processor flags that change which arithmetic is done."""
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
"""Environment variables that control threads, memory and kernels; no others are recorded."""


@dataclass(frozen=True)
class Environment:
    """A machine and what is installed on it."""

    python: str
    platform: str
    processor: str
    """The processor's name, and how many of its cores this process may use."""
    processor_flags: tuple[str, ...]
    """The flags that change which arithmetic is done, such as ``amx_bf16``."""
    settings: dict[str, str]
    """The variables of `SETTINGS` that are set."""
    packages: dict[str, str]
    """The version of each of `PACKAGES` that is installed, by name."""


def read_environment() -> Environment:
    """Return the environment of this process, without importing heavy libraries."""
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
    usable = getattr(os, "sched_getaffinity", None)  # only on Linux
    cores = len(usable(0)) if usable else os.cpu_count()
    return f"{names[0]}, {cores} cores"


def list_versions(packages: Sequence[str] = SERVING) -> dict[str, str]:
    """Return the versions of the packages that are installed, by name."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of this process inside the block, and restore them after it."""
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
    """Return the values that /proc/cpuinfo has for a key; none where there is no such file."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return [value.strip() for name, value in pairs if name.strip() == key]
