"""Retries of requests to a tracking server or a model hub, and the error if all of them fail."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from distill_tasks.core.credentials import mask_credentials

logger = logging.getLogger("potstill")

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""MLflow's environment variable with the number of retries."""
RETRIES_FOR_TWO_MINUTES = "6"
"""The number of retries for which MLflow waits 0, 4, 8, 16, 32 and 64 s."""


def limit_retries() -> None:
    """Make MLflow retry requests for two minutes, and log each retry, also those of a model hub.

    The environment variable, if set, decides the number of retries.
    """
    os.environ.setdefault(RETRIES, RETRIES_FOR_TWO_MINUTES)
    _replace_lines("urllib3.util.retry", _RetryLines(), logging.DEBUG)
    _replace_lines("huggingface_hub.utils._http", _HubLines(), logging.WARNING)


def say_unanswered(error: BaseException) -> str | None:
    """Return one line for the error of a server that did not answer after all retries.

    Returns None for any other error.
    """
    from requests import RequestException

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if not any(isinstance(cause, RequestException) for cause in causes):
        return None
    return (
        f"MLflow gave up: {shorten(error)}. Look after that server; the same command then goes "
        "on from here."
    )


def shorten(error: BaseException) -> str:
    """Return the first line of an MLflow error, reduced to its innermost cause."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    reason = re.sub(r"failed with exception .*\(Caused by (.+)\)", r"failed: \1", reason)
    return mask_credentials(reason)[:300]


def _replace_lines(name: str, lines: logging.Handler, level: int) -> None:
    """Have a library's logger, which alone reports its retries, speak through a handler."""
    theirs = logging.getLogger(name)
    if not any(isinstance(handler, type(lines)) for handler in theirs.handlers):
        theirs.setLevel(level)
        theirs.propagate = False
        theirs.addHandler(lines)


class _HubLines(logging.Handler):
    """Logs each retry of a request to a model hub in one line, where the library writes four."""

    why = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a retry; the line before it says why, the last reason is the error's."""
        message = record.getMessage()
        reason, thrown, _ = message.partition(" thrown while requesting ")
        retry = re.search(r"(\d+(?:\.\d+)?)s.*\[Retry (\d+)/(\d+)\]", message)
        if thrown:
            self.why = reason.strip("'")
        elif retry is not None:
            logger.warning("model hub: %s; retry %s of %s in %s s", self.why, *retry.group(2, 3, 1))
        else:
            logger.warning("model hub: %s", message)


class _RetryLines(logging.Handler):
    """Logs each retry of a request, with the number of retries."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a retry that urllib3 reports; the arguments are its address and the retry."""
        if isinstance(record.args, tuple) and hasattr(record.args[-1], "history"):
            retry: Any = record.args[-1]
            done, last = len(retry.history), retry.history[-1]
            why = f"answered {last.status}" if last.status else f"{last.error}"
            logger.warning("MLflow: %s; retry %d of %d", why, done, done + retry.total)
