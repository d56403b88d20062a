"""`potstill synthesize`: has a language model write example texts of every class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from distill_tasks.config import DistillConfig, load_config
from distill_tasks.core.errors import InputError
from distill_tasks.core.run_lock import WAIT_MINUTES
from flows.commands.options import AcceptLicence, Config, Estimate, WaitMinutes
from flows.commands.predict import refuse_output
from flows.printing import print_estimate, print_synthesis


def synthesize(
    config: Config,
    *,
    per_class: Annotated[
        int,
        Parameter(help="New texts of each class.", validator=validators.Number(gte=1, lte=100_000)),
    ],
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="Where to write: csv, jsonl or parquet."),
    ] = None,
    overwrite: Annotated[bool, Parameter(help="Replace what is there.", negative="")] = False,
    estimate: Estimate = False,
    wait_minutes: WaitMinutes = WAIT_MINUTES,
    accept_licence: AcceptLicence = False,
) -> None:
    """Have the teacher, a language model behind an API, write texts to learn from.

    It is shown rows of train. What repeats a row of any split, or another text, is left out. Name
    the file as `data.synthetic`: the next `run` learns from it, and says what it brings.

    Example: potstill synthesize distill.yaml --per-class 50 --output synthetic.parquet
    """
    settings = _leave_out_synthetic(load_config(config))
    if output is not None and not estimate:
        refuse_output(config, output, overwrite)
        settings.teacher.check_licence(accept_licence)
    elif not estimate:
        raise InputError("Say where to write: --output synthetic.parquet (or csv, jsonl).")
    from distill_tasks.core.store import Store
    from distill_tasks.data.synthetic import write_synthetic
    from distill_tasks.stages.prepare import check_config
    from distill_tasks.stages.synthesize import estimate_texts, write_texts

    corpus = check_config(settings)
    if output is None or estimate:
        missing = estimate_texts(settings, corpus, per_class)
        print_estimate(settings, missing, what="texts are not written")
        return
    with Store(settings.work_dir).lock(f"synthesize {settings.name}", wait_minutes):
        found = write_texts(settings, corpus, per_class)
    write_synthetic(found.texts, output)
    print_synthesis(found, output)


def _leave_out_synthetic(config: DistillConfig) -> DistillConfig:
    """Return a configuration without the file that it may name and that is to be written."""
    data = config.data.model_copy(update={"synthetic": None})
    return config.model_copy(update={"data": data})
