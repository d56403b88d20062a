"""`potstill`: how a person or CI starts a flow."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout

from cyclopts import App, CycloptsError

from distill_tasks.config import write_schema
from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.core.live import LogLines
from distill_tasks.core.process import set_up_process
from distill_tasks.core.retries import limit_retries, say_unanswered
from distill_tasks.core.terminal import Terminal, degrade_characters
from flows.answers import CODES, EXIT_CODES, Answer, Ending
from flows.commands.automations import automations
from flows.commands.export import export
from flows.commands.init import init
from flows.commands.predict import predict
from flows.commands.prune import prune
from flows.commands.review import compare, promote
from flows.commands.run import check, label, plan, run
from flows.commands.status import status
from flows.commands.synthesize import synthesize
from flows.commands.trigger import trigger
from flows.commands.ui import ui
from flows.commands.versions import history, review, rollback
from flows.version_answers import PromotionAnswer

ABOUT = "Distil a large teacher into the small model that goes to production, and prove it may."
UNFORTUNATE = {
    *(Ending.FAILED, Ending.WRONG_INPUT, Ending.NOTHING_QUALIFIED),
    *(Ending.TIMED_OUT, Ending.NO_WORKER),
}
"""What is said as an error."""

logger = logging.getLogger("potstill")
errors = Terminal(stderr=True)


def schema() -> None:
    """Print the JSON schema that editors complete a distill.yaml from.

    Example: potstill schema > schema/distill.schema.json
    """
    sys.stdout.write(write_schema())


COMMANDS: tuple[Callable[..., Answer | None], ...] = (
    *(init, check, plan, run, label, synthesize, trigger),
    *(compare, promote, review, rollback, history),
    *(status, automations, predict, export, prune, ui, schema),
)


def make_app() -> App:
    """Return the command line."""
    made = App(
        name="potstill",
        help=ABOUT,
        version="0.1.0",
        suppress_keyboard_interrupt=False,
        help_epilogue=EXIT_CODES,
    )
    for command in COMMANDS:
        made.command(command)
    return made


app = make_app()


def main() -> None:
    """Run the command line and end with the exit code of its answer."""
    set_up_process()
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    logger.handlers = [LogLines()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    limit_retries()
    degrade_characters(sys.stdout, sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = sys.argv[1:]
    if "--json" in arguments:
        stdout = sys.stdout
        with redirect_stdout(sys.stderr):  # whatever a library prints is not part of the object
            answer = _answer(arguments)
        if answer is not None:
            stdout.write(f"{answer.model_dump_json(indent=2)}\n")
    else:
        answer = _answer(arguments)
    if answer is not None and answer.exit_code:
        sys.exit(answer.exit_code)


def _answer(arguments: list[str]) -> Answer | None:
    """Return what a command answers, its errors included, which are printed; None from some."""
    try:
        answer: Answer | None = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except KeyboardInterrupt:
        message = "interrupted: the same command goes on from here."
        errors.say(message, style="yellow")
        return _give_up(arguments, Ending.INTERRUPTED, message)
    except (PotstillError, CycloptsError) as error:
        is_input = isinstance(error, InputError | CycloptsError)
        answer = _give_up(arguments, Ending.WRONG_INPUT if is_input else Ending.FAILED, str(error))
    except Exception as error:
        reason = say_unanswered(error) or _say_no_prefect(error)
        if reason is None:
            raise
        answer = _give_up(arguments, Ending.FAILED, reason)
    if isinstance(answer, PromotionAnswer) and answer.exit_code:
        errors.say(f"error: Nothing was promoted: {answer.reason}.", style="red")
    elif answer is not None and answer.outcome in UNFORTUNATE:
        errors.say(f"error: {mask_credentials(answer.message)}", style="red")
    return answer


def _say_no_prefect(error: Exception) -> str | None:
    """Return one line for the error of a Prefect server that did not answer, None for others."""
    from flows.flow_runs import say_no_prefect

    return say_no_prefect(error)


def _give_up(arguments: list[str], ending: Ending, reason: str) -> Answer:
    command = next((word for word in arguments if not word.startswith("-")), "")
    message = mask_credentials(reason)
    return Answer(command=command, outcome=ending, exit_code=CODES[ending], message=message)


if __name__ == "__main__":
    main()
