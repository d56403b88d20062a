"""`potstill`: how a person or CI starts a flow."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable

from cyclopts import App, CycloptsError

from distill_tasks.config import write_schema
from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.core.live import LogLines
from distill_tasks.core.process import set_up_process
from distill_tasks.core.terminal import Terminal, degrade_characters
from distill_tasks.tracking.retries import limit_retries, say_unanswered
from flows.commands.review import compare, promote, rollback
from flows.commands.run import check, label, plan, run

ABOUT = "Distil a large teacher into the small model that goes to production, and prove it may."
INTERRUPTED = 130
"""The exit code of a run that SIGINT or SIGTERM ended: 128 + SIGINT, as shells have it."""

logger = logging.getLogger("potstill")
errors = Terminal(stderr=True, soft_wrap=True)


def schema() -> None:
    """Print the JSON schema that editors complete a distill.yaml from.

    Example: potstill schema > schema/distill.schema.json
    """
    sys.stdout.write(write_schema())


COMMANDS: tuple[Callable[..., None], ...] = (
    *(check, plan, run, label),
    *(compare, promote, rollback),
    schema,
)


def make_app() -> App:
    """Return the command line."""
    made = App(
        name="potstill",
        help=ABOUT,
        version="0.1.0",
        suppress_keyboard_interrupt=False,
        help_epilogue="Exit codes: 0 done, 1 failed or refused, 2 wrong input, 130 interrupted.",
    )
    for command in COMMANDS:
        made.command(command)
    return made


app = make_app()


def main() -> None:
    """Run the command line and exit with 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    set_up_process()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    logger.handlers = [LogLines()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    limit_retries()
    degrade_characters(sys.stdout, sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        errors.print("interrupted: the same command goes on from here.", style="yellow")
        sys.exit(INTERRUPTED)
    except (PotstillError, CycloptsError) as error:
        code = error.exit_code if isinstance(error, PotstillError) else InputError.exit_code
        _fail(str(error), code)
    except Exception as error:
        reason = say_unanswered(error)
        if reason is None:
            raise
        _fail(reason, PotstillError.exit_code)


def _fail(reason: str, code: int) -> None:
    errors.print(f"error: {mask_credentials(reason)}", style="red")
    sys.exit(code)


if __name__ == "__main__":
    main()
