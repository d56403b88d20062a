"""Commands that review registered versions: compare, promote, rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from distill_tasks.config import load_config
from distill_tasks.core.errors import PotstillError
from distill_tasks.core.run_lock import WAIT_MINUTES
from flows.commands.checks import load_checked
from flows.commands.options import Config, DryRun, WaitMinutes
from flows.printing import print_notes, print_promotion, print_side_by_side


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
    written = RowFormat(
        text_column=text_column,
        label_column=label_column,
        label_separator=label_separator,
        merge_labels=merge_labels,
    )
    model = open_served(first)
    rows, classes, findings = read_rows(on, written, model.problem, model.classes)
    print_notes(findings)
    print_side_by_side(compare_models(first, second, rows, classes, measure=MeasureConfig()))


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
    settings = load_checked(config)
    from flows.promote import promote as promote_flow

    promotion = promote_flow(settings, version, dry_run, wait_minutes)
    print_promotion(promotion)
    if not promotion.moved and not promotion.reused and not dry_run:
        raise PotstillError(f"Nothing was promoted: {promotion.reason}.")


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
