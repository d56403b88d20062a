"""One line in the log for each decision of a run, for programs; the sentences are for people.

Such as ``decision stage=gate outcome=passed model=reuters-r8 version=4 reason="gains 1.2 points"``.
"""

from __future__ import annotations

import json
import logging
import re

from distill_tasks.core.credentials import mask_credentials

DECISIONS = "potstill.decisions"
"""The logger of these lines; a terminal, at which people sit, does not show them."""
logger = logging.getLogger(DECISIONS)

_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)
"""What needs no quotes."""

Value = str | int | float | None


def log_decision(stage: str, outcome: str, *, reason: str = "", **about: Value) -> None:
    """Log what a stage decided, and why, in one line.

    ``about`` says of what: a candidate, or a model and its version. What is None is left out.
    """
    known = {"stage": stage, "outcome": outcome, **about, "reason": reason or None}
    logger.info("%s", write_decision({key: one for key, one in known.items() if one is not None}))


def write_decision(fields: dict[str, Value]) -> str:
    """Return ``decision`` and a ``key=value`` for each field.

    A value of other than ASCII letters, digits and ``_.:/@+-`` is a JSON string of ASCII, so that
    whatever a user wrote is on one line and moves no cursor.
    """
    return " ".join(["decision", *(f"{key}={_quote(value)}" for key, value in fields.items())])


def _quote(value: Value) -> str:
    text = mask_credentials(str(value))
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
