"""What the user of the evaluator asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.scoring.statistics import Quality


@dataclass(frozen=True)
class Request:
    """The evaluator's section of ``evaluator_config``."""

    teacher: Any
    """The teacher's answers: URI of an MLflow model, name of a column of the data, or one label or
    one row of class probabilities for each row."""
    baseline: Any = None
    """The answers that the student must beat, given in the same ways; by default the teacher's."""
    metric: Quality = "accuracy"
    """What the verdict is about."""
    classes: Sequence[Any] | None = None
    """The classes in the order of the columns of probabilities that have no names."""
    latency_calls: int = 200
    """Single rows that each model is timed on; 0 leaves the timing out."""


def read_request(section: Mapping[str, Any]) -> Request:
    """Return the request; raises InputError for keys and values that are not known."""
    known = [field.name for field in fields(Request)]
    for key in section:
        if key not in known:
            raise InputError(
                f"The evaluator distillation knows no {key!r}{did_you_mean(str(key), known)}. "
                f"It knows {shortlist(known)}."
            )
    request = Request(**section)
    if request.metric not in get_args(Quality):
        raise InputError(
            f"metric is {request.metric!r}{did_you_mean(str(request.metric), get_args(Quality))}. "
            f"Give {shortlist(get_args(Quality))}."
        )
    calls = request.latency_calls
    if not isinstance(calls, int) or (calls != 0 and not 20 <= calls <= 100_000):
        raise InputError(f"latency_calls is {calls!r}. Give 20 to 100,000, or 0 to time nothing.")
    return request
