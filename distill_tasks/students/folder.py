"""A student's folder: the description that `served_model` opens it by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distill_tasks.served_model import ABOUT
from distill_tasks.students.lesson import Lesson


def describe_model(folder: Path, runtime: str, lesson: Lesson, **settings: Any) -> None:
    """Write the description beside the weights: runtime, problem, classes in logit order."""
    about = {
        "runtime": runtime,
        "problem": lesson.problem,
        "classes": list(lesson.classes),
        **settings,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
