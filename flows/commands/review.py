"""Commands that judge registered versions: compare, promote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from distill_tasks.config import TrackingConfig
from distill_tasks.core.run_lock import WAIT_MINUTES
from flows.answers import (
    DETAILED_CODES,
    PROMOTE_CODES,
    Answer,
    answer_comparison,
    name_ending,
)
from flows.commands.checks import load_checked, load_written, say_nothing_to_do
from flows.commands.options import (
    Config,
    DetailedExitCodes,
    DryRun,
    Json,
    Set,
    TrackingUri,
    WaitMinutes,
)
from flows.printing import print_notes, print_promotion, print_side_by_side
from flows.version_answers import answer_promotion


def compare(
    first: str,
    second: str,
    *,
    on: Annotated[Path, Parameter(help="Rows to ask both models: csv, parquet or jsonl.")],
    text_column: str = "text",
    label_column: Annotated[str, Parameter(help="Gold labels; may be absent.")] = "label",
    label_separator: Annotated[str | None, Parameter(help="As in data.label_separator.")] = None,
    merge_labels: Annotated[bool, Parameter(help="As data.merge_labels.", negative="")] = False,
    tracking_uri: TrackingUri = None,
    json: Json = False,
) -> Answer:
    """Compare two registered models on the same rows, quality and latency, in one run.

    Example: potstill compare models:/reuters-r8@champion models:/reuters-r8@challenger --on r.csv
    """
    tracking = TrackingConfig.at(tracking_uri)
    from distill_tasks.tracking.store import open_checked
    from registry.addresses import find_absent

    client = open_checked(tracking)

    absent = find_absent(client, first) or find_absent(client, second)
    if absent is not None:
        return say_nothing_to_do("compare", f"Nothing to compare: {absent}.", json)
    from distill_tasks.data.rows import read_rows
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.measuring.latency import MeasureConfig
    from registry.served import open_served, read_fields
    from registry.side_by_side import compare_models

    model = open_served(first)
    fields = read_fields(model)
    joined = {"text_column": fields, "text_template": model.template} if fields else {}
    written = RowFormat(
        **(joined if text_column == "text" else {"text_column": text_column}),
        label_column=label_column,
        label_separator=label_separator,
        merge_labels=merge_labels,
    )
    rows, classes, findings = read_rows(on, written, model.problem, model.classes)
    pair = compare_models(first, second, rows, classes, measure=MeasureConfig())
    if not json:
        print_notes(findings)
        print_side_by_side(pair)
    return answer_comparison(pair)


def promote(
    config: Config,
    *,
    version: Annotated[int | None, Parameter(help="Version; the challenger by default.")] = None,
    set_: Set = None,
    dry_run: DryRun = False,
    wait_minutes: WaitMinutes = WAIT_MINUTES,
    json: Json = False,
    detailed_exit_codes: DetailedExitCodes = False,
) -> Answer:
    """Compare the challenger with the champion on held-out rows, and promote it if it wins.

    Example: potstill promote examples/reuters/distill.yaml --dry-run
    """
    written = load_written(config, set_)
    from distill_tasks.tracking.store import open_checked
    from registry.aliases import CHALLENGER, find_missing

    client = open_checked(written.tracking)
    absent = find_missing(client, written.registry.model, CHALLENGER)
    if version is None and absent is not None:
        return say_nothing_to_do("promote", f"Nothing to promote: {absent}.", json)
    settings = load_checked(config, texts=set_)
    from flows.promote import promote as promote_flow

    promotion = promote_flow(settings, version, dry_run, wait_minutes)
    if not json:
        print_promotion(promotion)
    ending = name_ending(promotion, dry_run)
    codes = DETAILED_CODES if detailed_exit_codes else PROMOTE_CODES
    return answer_promotion("promote", promotion, ending, codes.get(ending, 0))
