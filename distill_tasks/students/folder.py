"""A student's folder: the description that `served_model` opens it by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_tasks.served_model import ABOUT


def describe_model(folder: Path, runtime: str, classes: Sequence[str], **settings: Any) -> None:
    """Write the description beside the weights: runtime, classes in logit order, settings."""
    about = {"runtime": runtime, "classes": list(classes), **settings}
    (folder / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
