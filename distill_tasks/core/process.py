"""How a process of Potstill is set up; importing the library changes nothing in it."""

from __future__ import annotations

import os

_ENVIRONMENT = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    # Threads that spin for long made training four times slower beside another busy process, and
    # threads that sleep at once a fifth slower on a quiet machine.
    "GOMP_SPINCOUNT": "10000",
    # Memory comes in pages of 2 MiB: fetching it by 4 KiB was a tenth of a training step.
    "THP_MEM_ALLOC_ENABLE": "1",
}


def set_up_process() -> None:
    """Set the environment variables that other libraries read, where the user has not set them.

    Most are read once, when torch, transformers or MLflow is imported: so whatever starts a process
    (the command line, a flow that a worker loads, the stopwatch, a benchmark) calls this before.
    The processes that it starts in turn inherit them.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
