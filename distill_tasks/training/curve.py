"""The curve of a training, read from the Trainer's log."""

from __future__ import annotations

import math
from collections.abc import Sequence

Curve = dict[str, float]
"""One point of a training curve: epoch, step, and metrics by name, such as ``validation/loss``."""


def read_curve(log: Sequence[dict[str, float]]) -> list[Curve]:
    """Merge the Trainer's training and validation lines of each epoch into one point.

    The Trainer logs the mean loss of an epoch in several lines, each for the steps since the last.
    """
    names = {
        "eval_loss": "validation/loss",
        "eval_accuracy": "validation/accuracy",
        "eval_macro_f1": "validation/macro_f1",
    }
    epochs: dict[int, Curve] = {}
    begun = last = 0.0
    for line in log:
        number = math.ceil(line["epoch"])
        if number not in epochs:
            epochs[number], begun = {}, last
        point = epochs[number]
        point |= {"epoch": line["epoch"], "step": line["step"]}
        point |= {names[key]: value for key, value in line.items() if key in names}
        if "loss" in line:
            before = point.get("train/loss", 0.0) * (last - begun)
            now = line["loss"] * (line["step"] - last)
            last = line["step"]
            point["train/loss"] = (before + now) / (last - begun)
    return list(epochs.values())
