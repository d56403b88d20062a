"""How a distillation is done: verbs are stages, nouns are the library."""

import os

_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    # Waiting threads that spin made training four times slower beside another busy process.
    "OMP_WAIT_POLICY": "passive",
    # Every batch shape compiles its own kernels; keeping them all doubled peak memory for no speed.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
}
"""Settings of other libraries, read when they are imported; the user's environment goes first."""

for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
