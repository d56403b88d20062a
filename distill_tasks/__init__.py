"""How a distillation is done: verbs are stages, nouns are the library."""

import os

_ENVIRONMENT = {
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
"""Settings of other libraries, read when they are imported; the user's environment goes first."""

for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
