"""`potstill`: how a person or CI starts a flow."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, validators

from distill_tasks.config import DistillConfig, load_config, write_schema
from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError, NothingQualifiesError, PotstillError
from distill_tasks.core.live import LogLines
from distill_tasks.core.process import set_up_process
from distill_tasks.core.run_lock import WAIT_MINUTES
from distill_tasks.core.terminal import Terminal, degrade_characters
from distill_tasks.tracking.retries import limit_retries, say_unanswered
from flows.export import export
from flows.init import init
from flows.predict import predict
from flows.printing import (
    count_candidates,
    out,
    print_named,
    print_notes,
    print_outcome,
    print_plan,
    print_promotion,
    print_side_by_side,
)

Config = Annotated[Path, Parameter(help="The distill.yaml.")]
DryRun = Annotated[bool, Parameter(help="Say what would happen and change nothing.", negative="")]

WaitMinutes = Annotated[
    float,
    Parameter(
        help="How long to wait where another run works in the same work_dir; 0 ends at once.",
        validator=validators.Number(gte=0),
    ),
]

INTERRUPTED = 130
"""The exit code of a run that SIGINT or SIGTERM ended: 128 + SIGINT, as shells have it."""

logger = logging.getLogger("potstill")
errors = Terminal(stderr=True, soft_wrap=True)

app = App(
    name="potstill",
    help="Distil a large teacher into the small model that goes to production, and prove it may.",
    version="0.1.0",
    suppress_keyboard_interrupt=False,
    help_epilogue="Exit codes: 0 done, 1 failed or refused, 2 wrong input, 130 interrupted.",
)


@app.command
def check(config: Config) -> None:
    """Check configuration, rows, teacher and MLflow before any expensive work.

    Example: potstill check examples/reuters/distill.yaml
    """
    from distill_tasks.stages.prepare import check_config, report_on_data

    settings = load_config(config)
    _check_prefect()
    corpus = check_config(settings)
    rows = ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
    print_named(settings.name, f"{rows} rows; {len(corpus.classes)} classes")
    print_notes([*corpus.findings, *report_on_data(settings, corpus).warnings])
    out.print(f"  grid: {', '.join(student.name for student in settings.students)}")


@app.command
def plan(config: Config) -> None:
    """Say how many students a run would train, how large they are and how long they take.

    Each shape of student is tried for 20 steps; nothing is kept, and the teacher is not asked.

    Example: potstill plan examples/reuters/distill.yaml
    """
    from distill_tasks.stages.plan import plan_grid
    from distill_tasks.stages.prepare import check_config

    settings = load_config(config)
    corpus = check_config(settings)
    print_plan(settings, plan_grid(settings, corpus))


@app.command
def run(config: Config, *, wait_minutes: WaitMinutes = WAIT_MINUTES) -> None:
    """Distil: label, train the grid, measure, select, register, and promote what wins.

    Example: potstill run examples/reuters/distill.yaml
    """
    settings = _checked(config)
    from distill_tasks.stages.halve import will_halve
    from flows.distill import Outcome, distill

    halving = "on" if will_halve(settings) else "off"
    logger.info("grid: %s, halving %s", count_candidates(settings), halving)
    try:
        print_outcome(distill(settings, wait_minutes))
    except NothingQualifiesError as error:
        if isinstance(error.outcome, Outcome):
            print_outcome(error.outcome)
        raise


@app.command
def label(config: Config, *, wait_minutes: WaitMinutes = WAIT_MINUTES) -> None:
    """Have the teacher answer every row and stop there; `run` reads the same answers.

    Example: potstill label examples/reuters/distill.yaml
    """
    settings = _checked(config)
    from flows.label import label_only

    labels = label_only(settings, wait_minutes)
    out.print(f"Teacher {labels.teacher} answered {labels.asked} new rows; kept in {labels.root}.")


@app.command
def compare(
    first: str,
    second: str,
    *,
    on: Annotated[Path, Parameter(help="Rows to ask both models: csv, parquet or jsonl.")],
    text_column: str = "text",
    label_column: Annotated[str, Parameter(help="Gold labels; may be absent.")] = "label",
    label_separator: Annotated[str | None, Parameter(help="As in data.label_separator.")] = None,
    merge_labels: Annotated[bool, Parameter(help="As data.merge_labels.", negative="")] = False,
    tracking_uri: Annotated[str, Parameter(help="MLflow tracking URI.")] = "sqlite:///mlflow.db",
) -> None:
    """Compare two registered models on the same rows, quality and latency, in one run.

    Example: potstill compare models:/reuters-r8@champion models:/reuters-r8@challenger --on r.csv
    """
    from distill_tasks.config import TrackingConfig
    from distill_tasks.data.rows import read_rows
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.measuring.latency import MeasureConfig
    from distill_tasks.tracking.store import check_tracking, open_store

    tracking = TrackingConfig(uri=tracking_uri)
    check_tracking(tracking)
    from registry.served import open_served
    from registry.side_by_side import compare_models

    open_store(tracking)
    model = open_served(first)
    fields, column = getattr(model, "fields", ()), text_column
    joined = {"text_column": fields, "text_template": model.template} if fields else {}
    written = RowFormat(
        **({"text_column": column} if column != "text" else {"text_column": "text", **joined}),
        label_column=label_column,
        label_separator=label_separator,
        merge_labels=merge_labels,
    )
    rows, classes, findings = read_rows(on, written, model.problem, model.classes)
    print_notes(findings)
    print_side_by_side(compare_models(first, second, rows, classes, measure=MeasureConfig()))


@app.command
def promote(
    config: Config,
    *,
    version: Annotated[int | None, Parameter(help="Version; the challenger by default.")] = None,
    dry_run: DryRun = False,
    wait_minutes: WaitMinutes = WAIT_MINUTES,
) -> None:
    """Compare the challenger with the champion on held-out rows, and promote it if it wins.

    Example: potstill promote examples/reuters/distill.yaml --dry-run
    """
    settings = _checked(config)
    from flows.promote import promote as promote_flow

    promotion = promote_flow(settings, version, dry_run, wait_minutes)
    print_promotion(promotion)
    if not promotion.moved and not promotion.reused and not dry_run:
        raise PotstillError(f"Nothing was promoted: {promotion.reason}.")


@app.command
def rollback(config: Config, *, dry_run: DryRun = False) -> None:
    """Make the previous champion champion again; a second roll back returns.

    Example: potstill rollback examples/reuters/distill.yaml
    """
    settings = load_config(config)
    from distill_tasks.tracking.store import check_tracking, open_store

    check_tracking(settings.tracking)
    from registry.promote import roll_back

    client = open_store(settings.tracking)
    print_promotion(roll_back(client, settings.registry.model, dry_run))


@app.command
def schema() -> None:
    """Print the JSON schema that editors complete a distill.yaml from.

    Example: potstill schema > schema/distill.schema.json
    """
    sys.stdout.write(write_schema())


for command in (init, predict, export):
    app.command(command)


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


def _check_prefect() -> None:
    """Raise InputError if a server of Prefect is named and does not answer.

    Prefect Cloud is left to Prefect, and where no server is named a flow starts its own.
    """
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = PREFECT_API_URL.value()
    if not url:
        return
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": 5.0}, sync_client=True) as client,
    ):
        failure = client.api_healthcheck() if client.server_type is ServerType.SERVER else None
    if failure is not None:
        reason = str(failure).splitlines()[0]
        raise InputError(
            f"PREFECT_API_URL {url} cannot be reached: {reason}. Start that server, correct the "
            "address, or unset it for a server of the run's own."
        )


def _checked(path: Path) -> DistillConfig:
    """Read and check a configuration, before a flow and its server are started."""
    from distill_tasks.stages.prepare import check_config

    settings = load_config(path)
    _check_prefect()
    check_config(settings)
    from flows.temporary_server import set_up_server

    set_up_server()
    return settings


if __name__ == "__main__":
    main()
