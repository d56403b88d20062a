"""How a distillation is done: verbs are stages, nouns are the library."""

import os

_CHATTER = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}
"""Other libraries' progress bars and telemetry, off unless the environment says otherwise."""

for _name, _value in _CHATTER.items():
    os.environ.setdefault(_name, _value)
