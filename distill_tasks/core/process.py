"""Environment variables of a Potstill process; importing the library alone sets none of them."""

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
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # it warns of a default that will change
    # Twenty seconds are too few for the temporary server where others keep the machine busy.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Stages that Python calls by hand, outside a flow, have no run to keep their lines.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # Waiting threads that spin for long made training four times slower beside another busy
    # process; threads that sleep at once made it a fifth slower on an idle machine.
    "GOMP_SPINCOUNT": "10000",
    # Huge pages of 2 MiB: allocating pages of 4 KiB took a tenth of a training step.
    "THP_MEM_ALLOC_ENABLE": "1",
}


def set_up_process() -> None:
    """Set the environment variables that libraries read, unless the user has set them.

    Most are read once, when torch, transformers or MLflow is imported, so every entry point (the
    command line, a flow that a worker loads, the stopwatch, a benchmark) calls this first. Child
    processes inherit the variables.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
