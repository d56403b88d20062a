"""`potstill predict`: asks a registered model about every row of a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from distill_tasks.core.errors import InputError
from flows.commands.options import TrackingUri
from flows.printing import out


def predict(
    model: Annotated[str, Parameter(help="models:/NAME@champion, or models:/NAME/VERSION.")],
    file: Annotated[Path, Parameter(help="Rows to answer: csv, jsonl or parquet.")],
    *,
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="Where to write: csv, jsonl or parquet.")
    ],
    text_column: Annotated[
        tuple[str, ...],
        Parameter(help="Column of the texts; may be given several times. `text`, by default."),
    ] = (),
    overwrite: Annotated[bool, Parameter(help="Replace what is there.", negative="")] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a file's rows with the label, its confidence and whether the model abstains.

    Rows are read and written in batches, so the file may be of any size.

    Example: potstill predict models:/tickets@champion new.csv -o answered.csv
    """
    from distill_tasks.config import TrackingConfig
    from distill_tasks.tracking.store import check_tracking, open_store

    refuse_output(file, output, overwrite)
    tracking = TrackingConfig.at(tracking_uri)
    check_tracking(tracking)
    from registry.predict import predict_file
    from registry.served import open_served

    open_store(tracking)
    opened = open_served(model)
    start = time.monotonic()
    done = predict_file(opened, file, output, text_column)
    speed = done.rows / max(time.monotonic() - start, 1e-9)
    out.say(f"Wrote {output}: {done.rows:,} rows with {', '.join(done.columns)}; {speed:,.0f}/s.")
    if done.empty:
        out.say(f"Rows without a text, so without a label: {done.empty:,}.")
    if done.abstained:
        out.say(f"Rows less sure than asked for, so marked to abstain: {done.abstained:,}.")


def refuse_output(file: Path, output: Path, overwrite: bool) -> None:
    """Raise InputError for a place that cannot be written, or must not be."""
    from distill_tasks.data.tables import FORMATS

    if output.suffix not in FORMATS:
        raise InputError(f"{output} is none of {', '.join(FORMATS)}. Name it with one of these.")
    if output.resolve() == file.resolve():
        raise InputError(f"{output} is the file that is read. Write somewhere else.")
    if output.exists() and not overwrite:
        raise InputError(f"{output} is there already. Give another --output, or --overwrite it.")
    if not output.parent.is_dir():
        raise InputError(f"There is no folder {output.parent} to write {output.name} into.")
