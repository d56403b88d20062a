"""Settings of a model before training: its classes, and no dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def class_settings(classes: Sequence[str]) -> dict[str, Any]:
    """Return the keyword arguments that give a model its class names."""
    return {
        "num_labels": len(classes),
        "id2label": dict(enumerate(classes)),
        "label2id": {name: number for number, name in enumerate(classes)},
    }


def without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration with every dropout rate at zero.

    Dropout's random numbers took 30 % of a training step on CPU and lowered accuracy
    (docs/decisions.md).
    """
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return config
