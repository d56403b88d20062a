"""The command that starts a deployment, for people and CI: trigger."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.core.markup import as_markdown
from distill_tasks.core.overrides import parse_overrides
from flows.answers import CODES, Answer, Ending
from flows.commands.options import Json, Set
from flows.printing import out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.orchestration import SyncPrefectClient

    from flows.trigger import Deployed
    from flows.trigger_answers import Shown, TriggerAnswer

logger = logging.getLogger("potstill")

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Environment variable with the file to which GitHub has a step append its summary."""


def trigger(
    deployment: Annotated[str, Parameter(help="FLOW/DEPLOYMENT, or the deployment alone.")],
    *,
    config: Annotated[
        Path | None,
        Parameter(help="The distill.yaml in place of the deployment's; one of here is sent whole."),
    ] = None,
    set_: Set = None,
    wait: Annotated[
        bool, Parameter(help="Follow the run, and end as it ends.", negative="")
    ] = False,
    timeout_minutes: Annotated[
        float | None,
        Parameter(
            name="--timeout",
            help="With --wait: minutes after which to wait no longer; the run goes on.",
            validator=validators.Number(gt=0),
        ),
    ] = None,
    json: Json = False,
) -> Answer:
    """Start a run of a deployment on the Prefect server of PREFECT_API_URL.

    What its flow would refuse is refused here, before a run is created. With --wait it ends with 0
    only if the flow completed and the gate did not fail. A summary in Markdown is added to the file
    of GITHUB_STEP_SUMMARY where that is set.

    Example: potstill trigger on-demand --config distill.yaml --set seed=7 --wait --timeout 60
    """
    if timeout_minutes is not None and not wait:
        raise InputError("--timeout says how long to wait. Add --wait, or leave it out.")
    from flows.prefect_server import open_server
    from flows.trigger import NoWorkerError, await_worker, check_parameters, find_deployment
    from flows.trigger_answers import Shown, answer_unfinished, summarize

    with _summarized(deployment), open_server("deployments") as client:
        overrides = parse_overrides(set_ or ())
        found = find_deployment(client, deployment)
        parameters = check_parameters(found, config, overrides)
        try:
            await_worker(client, found)
        except NoWorkerError as error:
            answer, shown = answer_unfinished(found.name, Ending.NO_WORKER, str(error)), Shown()
        else:
            timeout_s = None if timeout_minutes is None else 60 * timeout_minutes
            answer, shown = _run(client, found, parameters, wait=wait, timeout_s=timeout_s)
        _add(summarize(answer, shown))
    if not json and CODES.get(answer.outcome, 0) in (0, CODES[Ending.INTERRUPTED]):
        out.say(answer.message)  # anything worse is said as an error
    return answer


def _run(
    client: SyncPrefectClient,
    found: Deployed,
    parameters: dict[str, object],
    *,
    wait: bool,
    timeout_s: float | None,
) -> tuple[TriggerAnswer, Shown]:
    """Create a run and, if asked for, follow it to its end."""
    from flows.trigger import NoWorkerError, TimedOutError, follow, link_run, start_run
    from flows.trigger_answers import Shown, answer_trigger, answer_unfinished, read_shown

    run = start_run(client, found, parameters)
    link = link_run(run.id)
    if not wait:
        message = f"{found.name} was started: {link}"
        return answer_unfinished(found.name, Ending.STARTED, message, run=run, link=link), Shown()
    logger.info("%s was started: %s", found.name, link)
    try:
        run = follow(client, found, run.id, timeout_s)
    except (NoWorkerError, TimedOutError, KeyboardInterrupt) as error:
        ending, message = _name_break(error, str(run.id))
        return answer_unfinished(found.name, ending, message, run=run, link=link), Shown()
    shown = read_shown(client, run)
    return answer_trigger(found.name, run, link, shown), shown


def _name_break(error: BaseException, run_id: str) -> tuple[Ending, str]:
    """Return how the waiting for a run ended before the run did, and what to say of it."""
    from flows.trigger import NoWorkerError

    if isinstance(error, KeyboardInterrupt):
        cancel = f"`prefect flow-run cancel {run_id}`"
        return Ending.INTERRUPTED, f"interrupted: the run goes on. Cancel it with {cancel}."
    ending = Ending.NO_WORKER if isinstance(error, NoWorkerError) else Ending.TIMED_OUT
    return ending, str(error)


@contextmanager
def _summarized(deployment: str) -> Iterator[None]:
    """Add what is wrong, where something is, to the summary too."""
    try:
        yield
    except PotstillError as error:
        said = as_markdown(mask_credentials(str(error)))
        _add(f"## {as_markdown(deployment)}: not started, or not followed\n\n{said}\n")
        raise


def _add(section: str) -> None:
    """Append a section to the file that CI shows, where there is one."""
    path = os.environ.get(SUMMARY)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(section)
