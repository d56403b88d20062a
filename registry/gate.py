"""Stage ``gate``: challenger against champion, both asked the same frozen rows in one run."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from mlflow import MlflowClient

from distill_tasks.answers import ask_sorted
from distill_tasks.config import DistillConfig
from distill_tasks.corpus import Split
from distill_tasks.digests import digest
from distill_tasks.errors import InputError
from distill_tasks.intervals import Figure, plain_value
from distill_tasks.latency import Latency, MeasureConfig
from distill_tasks.prepare import CorpusReference
from distill_tasks.problem import LABEL_SEPARATOR, Decisions
from distill_tasks.stage import stage
from distill_tasks.stopwatch_process import Served, time_served
from distill_tasks.verdicts import PairedComparison, Verdict, compare_answers
from distill_tasks.weighted_metrics import Quality, quality
from registry.aliases import CHAMPION, ROLLED_BACK, VERDICT, Registered, aliases_of, tags_of

logger = logging.getLogger("potstill")

GATE = "potstill.gate"
"""Tag of a version with its last comparison against the champion, as JSON."""
CLEARLY_FASTER = 0.9
"""A challenger is faster if its p95 latency is below this share of the champion's."""


@dataclass(frozen=True)
class SideBySide:
    """Two models on the same rows in one run."""

    names: tuple[str, str]
    metric: Quality
    qualities: tuple[float, float] | None
    """The metric of both; None where the rows have no gold."""
    agreement: float
    comparison: PairedComparison | None
    latencies: tuple[Latency, Latency]
    rows: int


@dataclass(frozen=True)
class GateReport:
    """Whether a version may become champion, and the comparison that says so."""

    version: int
    compared_to: int | None
    """The champion that it was compared to; None where there was none."""
    basis: str
    """Digest of the rows and of the rule that the verdict rests on."""
    promote: bool
    reason: str
    verdict: Verdict | None = None
    difference: Figure | None = None
    reused: bool = False


def compare_models(
    first: str,
    second: str,
    rows: Split,
    classes: tuple[str, ...],
    measure: MeasureConfig,
    metric: Quality = "accuracy",
) -> SideBySide:
    """Load two models by URI and compare them on the same rows, quality and latency."""
    models = {uri: open_served(uri) for uri in (first, second)}
    known = tuple(dict.fromkeys([*classes, *(c for m in models.values() for c in m.classes)]))
    said = {uri: _ask(model, rows, known, uri) for uri, model in models.items()}
    timed = time_served({uri: _place(model) for uri, model in models.items()}, rows.texts, measure)
    comparison, qualities = None, None
    gold = rows.decisions(len(classes))
    if gold is not None:
        gold = np.pad(gold, ((0, 0), (0, len(known) - len(classes))))
        comparison = compare_answers(gold, [said[first]], [said[second]], metric)
        ours, theirs = (
            plain_value(quality(metric, gold, said[uri]), len(rows)) for uri in (first, second)
        )
        qualities = (ours, theirs)
    return SideBySide(
        names=(first, second),
        metric=metric,
        qualities=qualities,
        agreement=float((said[first] == said[second]).all(axis=1).mean()),
        comparison=comparison,
        latencies=(timed[first], timed[second]),
        rows=len(rows),
    )


def judge(
    config: DistillConfig,
    held_out: Split,
    registered: Registered,
    classes: tuple[str, ...],
    dry_run: bool = False,
) -> GateReport:
    """Compare a version with the current champion and write the verdict on the version.

    It may be promoted where there is no champion, where its quality BEATS the champion's, or
    where it is clearly faster and the interval of its loss stays within ``allowed_drop``; never
    where the same student is as good without its teacher.
    """
    client = MlflowClient(config.tracking.uri)
    rule = [config.select.metric, config.registry.allowed_drop, config.measure.model_dump()]
    basis = digest(held_out.digest, rule)
    champion = aliases_of(client, registered.model).get(CHAMPION)
    plain = GateReport(registered.version, champion, basis, promote=False, reason="")
    if champion == registered.version:
        return replace(plain, reason=f"version {champion} is the champion already", reused=True)
    tags = tags_of(client, registered)
    if tags.get(VERDICT) == Verdict.NO_BEATS:
        reason = "NO BEATS: held-out says that the same student is as good without its teacher"
        return replace(plain, reason=reason)
    if ROLLED_BACK in tags:
        reason = f"it was rolled back; `potstill promote --version {registered.version}` retries it"
        return replace(plain, reason=reason)
    earlier = read_gate(client, registered)
    if earlier and (earlier.compared_to, earlier.basis) == (champion, basis):
        return earlier
    report = _compare(config, held_out, registered, plain, classes)
    if not dry_run:
        _write_gate(client, registered, report)
    return report


@stage("gate {registered.model} {registered.version}", retries=2)
def gate(
    config: DistillConfig, corpus: CorpusReference, registered: Registered, dry_run: bool = False
) -> GateReport:
    """Judge a version against the champion."""
    rows = corpus.open()
    return judge(config, rows.splits["held_out"], registered, rows.classes, dry_run)


def read_gate(client: MlflowClient, registered: Registered) -> GateReport | None:
    """Return the comparison written on a version, if there is one."""
    tags = client.get_model_version(registered.model, str(registered.version)).tags
    if GATE not in tags:
        return None
    saved = json.loads(tags[GATE])
    difference = Figure(**saved["difference"]) if saved["difference"] else None
    verdict = Verdict(saved["verdict"]) if saved["verdict"] else None
    return GateReport(**{**saved, "difference": difference, "verdict": verdict, "reused": True})


def decide(
    comparison: PairedComparison,
    challenger: Latency,
    champion: Latency,
    allowed_drop: float,
    metric: Quality = "accuracy",
) -> tuple[bool, str]:
    """Return whether the challenger wins, and why."""
    points = comparison.difference.points
    ratio = challenger.p95_ms / champion.p95_ms
    speed = f"{ratio:.2g}× the champion's p95 latency"
    if comparison.verdict is Verdict.BEATS:
        return True, f"{comparison.verdict}: {points} of {metric} at {speed}"
    if comparison.difference.low >= -allowed_drop and ratio < CLEARLY_FASTER:
        return True, f"as good within {100 * allowed_drop:g} points ({points}) at {speed}"
    return False, f"{comparison.verdict}: {points} of {metric} at {speed}"


def _compare(
    config: DistillConfig,
    held_out: Split,
    registered: Registered,
    plain: GateReport,
    classes: tuple[str, ...],
) -> GateReport:
    """Return the report with the comparison filled in."""
    if plain.compared_to is None:
        return replace(plain, promote=True, reason="there is no champion yet")
    if not held_out.has_gold:
        return replace(plain, reason="held_out has no gold labels, so nothing can be proven")
    logger.info("gate: version %d against champion %d", registered.version, plain.compared_to)
    champion_uri = f"models:/{registered.model}/{plain.compared_to}"
    metric = config.select.metric
    pair = compare_models(registered.uri, champion_uri, held_out, classes, config.measure, metric)
    assert pair.comparison is not None  # gold is there
    allowed = config.registry.allowed_drop
    promote, reason = decide(pair.comparison, *pair.latencies, allowed, metric)
    return replace(
        plain,
        promote=promote,
        reason=reason,
        verdict=pair.comparison.verdict,
        difference=pair.comparison.difference,
    )


def open_served(uri: str) -> Any:
    """Return the `ServedModel` inside a model of the registry, with the code of its version.

    Raises InputError if the URI names no model of Potstill.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        python_model = mlflow.pyfunc.load_model(uri).unwrap_python_model()
        return python_model.model
    except (MlflowException, AttributeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{uri} cannot be opened as a model of Potstill: {reason}. "
            "Give models:/NAME@alias or models:/NAME/version."
        ) from None


def _place(model: Any) -> Served:
    """Return where an open model lies, and the code of its version."""
    code = sys.modules[type(model).__module__].__file__
    assert code is not None
    return Served(str(model.folder), code)


def _ask(model: Any, rows: Split, classes: tuple[str, ...], name: str) -> Decisions:
    """Return what a served model says (rows, classes), in the common order of classes."""
    numbers = {label: number for number, label in enumerate(classes)}
    said = np.zeros((len(rows), len(classes)), bool)
    for row, answer in enumerate(ask_sorted(model.answer, rows.texts, name)):
        several = getattr(model, "problem", "single_label") == "multi_label"
        labels = answer.label.split(LABEL_SEPARATOR) if several else [answer.label]
        said[row, [numbers[label] for label in labels if label]] = True
    return said


def _write_gate(client: MlflowClient, registered: Registered, report: GateReport) -> None:
    saved = {key: value for key, value in asdict(report).items() if key != "reused"}
    version = str(registered.version)
    client.set_model_version_tag(registered.model, version, GATE, json.dumps(saved))
