"""How often a tracking server that does not answer is asked again, and the error for that."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from distill_tasks.core.credentials import mask_credentials

logger = logging.getLogger("potstill")

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""MLflow's own variable of how often it asks a server again that does not answer."""
RETRIES_WITHIN_A_MINUTE = "5"
"""MLflow waits 0, 4, 8, 16 and 32 s before them."""


def limit_retries() -> None:
    """Have MLflow ask a server that does not answer again within a minute, and say so each time.

    How often it asks is the environment's to say, where it says so.
    """
    os.environ.setdefault(RETRIES, RETRIES_WITHIN_A_MINUTE)
    urllib3_logger = logging.getLogger("urllib3.util.retry")  # there alone a retry leaves a trace
    if not any(isinstance(handler, _RetryLines) for handler in urllib3_logger.handlers):
        urllib3_logger.setLevel(logging.DEBUG)
        urllib3_logger.propagate = False
        urllib3_logger.addHandler(_RetryLines())


def say_unanswered(error: BaseException) -> str | None:
    """Return in one line that a server did not answer, however often it was asked.

    None for any other error.
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
    """Return the first line of an error of MLflow's, with the cause inside it alone."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    reason = re.sub(r"failed with exception .*\(Caused by (.+)\)", r"failed: \1", reason)
    return mask_credentials(reason)[:300]


class _RetryLines(logging.Handler):
    """Says in the log that a server is asked again, and how often it will be."""

    def emit(self, record: logging.LogRecord) -> None:
        """Read what urllib3 says of a retry: its address and itself."""
        if isinstance(record.args, tuple) and hasattr(record.args[-1], "history"):
            retry: Any = record.args[-1]
            done, last = len(retry.history), retry.history[-1]
            why = f"answered {last.status}" if last.status else f"{last.error}"
            logger.warning("MLflow: %s; retry %d of %d", why, done, done + retry.total)
