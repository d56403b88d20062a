"""Timing models in a separate Python process, which runs this module by ``python -m``.

So the memory, caches and settings that training leaves behind do not affect the times.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from distill_tasks.core.errors import PotstillError
from distill_tasks.core.orphans import Watch
from distill_tasks.core.process import set_up_process
from distill_tasks.measuring.latency import (
    Answers,
    Latency,
    MeasureConfig,
    thread_settings,
    time_models,
)
from distill_tasks.serving import served_model


@dataclass(frozen=True)
class Served:
    """A model to be timed: its folder, and the serving code that opens it."""

    folder: str
    code: str = served_model.__file__
    about: dict[str, Any] | None = None
    """Its description if the folder has none, as a teacher's folder."""

    def open(self, device: str = "cpu") -> Any:
        """Open the model with its own code, on a device if its runtime supports that."""
        name, beside = f"served_{abs(hash(self.folder))}", [str(Path(self.code).parent)]
        spec = importlib.util.spec_from_file_location(
            name, self.code, submodule_search_locations=beside
        )
        assert spec is not None
        assert spec.loader is not None
        code = importlib.util.module_from_spec(spec)
        sys.modules[name] = code  # dataclasses look their module up by name
        spec.loader.exec_module(code)
        if self.about is None:
            model = code.open_model(self.folder)
        else:
            model = code.RUNTIMES[self.about["runtime"]](self.folder, self.about)
        if device != "cpu" and hasattr(model, "move_to"):
            model.move_to(device)
        return model


def time_served(
    models: dict[str, Served], texts: Sequence[str], config: MeasureConfig, seed: int = 0
) -> dict[str, Latency]:
    """Time models side by side in a separate Python process.

    Raises PotstillError if that process fails.
    """
    job = {
        "models": {name: asdict(model) for name, model in models.items()},
        "texts": list(texts),
        "config": config.model_dump(),
        "seed": seed,
    }
    # Each torch model gets oneDNN's default capacity for kernels, as when it is served alone.
    room = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(1024 * len(models))}
    process = subprocess.Popen(  # noqa: S603  # our own code
        [sys.executable, "-m", __name__],
        env=os.environ | room | thread_settings(config.threads),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process, Watch(process):
        printed, _ = process.communicate(json.dumps(job))
    if process.returncode:
        raise PotstillError(f"The stopwatch failed with exit code {process.returncode}; see above.")
    found = json.loads(printed.splitlines()[-1])
    return TypeAdapter(dict[str, Latency]).validate_python(found)


def time_on_cuda(answer: Answers, texts: Sequence[str]) -> float:
    """Return the median time in milliseconds between CUDA events around single answers."""
    import torch

    taken = []
    for text in texts:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        answer([text])
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end))
    return float(np.median(taken))


def main() -> None:
    """Time the models named on standard input, and print the results."""
    set_up_process()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    job = json.load(sys.stdin)
    config = MeasureConfig.model_validate(job["config"])
    models = {n: Served(**model).open(config.device) for n, model in job["models"].items()}
    answers = {name: model.answer for name, model in models.items()}
    found = time_models(answers, job["texts"], config, job["seed"])
    for name, model in models.items():
        if getattr(model, "device", "cpu") != "cpu":
            milliseconds = time_on_cuda(model.answer, job["texts"][: config.calls])
            found[name] = replace(found[name], cuda_p50_ms=milliseconds)
    print(json.dumps({name: latency.to_json() for name, latency in found.items()}))


if __name__ == "__main__":
    main()
