"""Stage ``gate``: compares challenger and champion on the same frozen rows in one run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from mlflow import MlflowClient
from pydantic import TypeAdapter

from distill_tasks.core.digests import digest
from distill_tasks.measuring.latency import find_band
from distill_tasks.results.review import GateReport, Standing
from distill_tasks.scoring.intervals import plain_value
from distill_tasks.scoring.statistics import quality
from distill_tasks.scoring.verdicts import Verdict, name_scarce
from distill_tasks.stages.stage import stage
from registry.aliases import (
    CHALLENGER,
    CHAMPION,
    CONTROL,
    ROLLED_BACK,
    STUDENT,
    VERDICT,
    Registered,
    aliases_of,
    tags_of,
)
from registry.records import keep_record, read_record
from registry.served import UnopenedError, ask, join_classes
from registry.side_by_side import compare_asked, read_gold

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig
    from distill_tasks.data.corpus import Split
    from distill_tasks.measuring.latency import Latency
    from distill_tasks.results.references import CorpusReference
    from distill_tasks.scoring.statistics import Quality
    from distill_tasks.scoring.verdicts import PairedComparison
    from registry.served import Asked
    from registry.side_by_side import SideBySide

logger = logging.getLogger("potstill")

CODE_VERSION = 2
"""Raised when a change of the code changes the verdict on the same answers."""
GATE = "gate"
"""The record of a version's last comparison against the champion; a tag says it in words."""
MEASURED = "measured"
"""The record of the quality of a version's student on held-out; a tag says it in words."""
SAME = 0.002
"""A registered model's quality on the same rows may differ by this much, because processors round
differently."""
CLEARLY_FASTER = 0.9
"""A challenger is faster if its p95 latency is below this share of the champion's, and the
difference exceeds that between two measurements of either model in the same run."""


@dataclass(frozen=True)
class Measured:
    """The quality of a student on held-out rows, before it was registered."""

    rows: str
    """Digest of the rows."""
    metric: Quality
    value: float


def judge(
    config: DistillConfig,
    held_out: Split,
    registered: Registered,
    classes: tuple[str, ...],
    dry_run: bool = False,
) -> GateReport:
    """Compare a version with the current champion and write the verdict on the version.

    It may be promoted if its quality BEATS the champion's, or if it is clearly faster and the whole
    interval of its loss stays within ``allowed_drop``. The first champion must BEAT the same
    student without its teacher, unless ``registry.first`` is ``any``. A version is never promoted
    if the same student is as good without its teacher.
    """
    client = MlflowClient(config.tracking.uri)
    rule = [config.select.metric, config.registry.allowed_drop, config.measure.model_dump()]
    basis = digest(CODE_VERSION, held_out.digest, rule)
    champion = aliases_of(client, registered.model).get(CHAMPION)
    plain = GateReport(registered.version, champion, basis, promote=False, reason="")
    if champion == registered.version:
        ask(registered.uri, held_out.take(np.arange(1)))
        return replace(plain, reason=f"version {champion} is the champion already", reused=True)
    tags = tags_of(client, registered)
    if tags.get(VERDICT) == Verdict.NO_BEATS:
        reason = "NO BEATS: held-out says that the same student is as good without its teacher"
        return replace(plain, reason=reason)
    if ROLLED_BACK in tags:
        again = f"`potstill promote distill.yaml --version {registered.version}`"
        reason = f"it was rolled back; {again} tries it again"
        return replace(plain, reason=reason)
    earlier = read_gate(client, registered)
    if earlier and _still_counts(earlier, champion, basis):
        return earlier
    report = _compare(config, held_out, registered, plain, classes)
    if not dry_run:
        _write_gate(client, registered, report)
    return report


@stage("compare version {registered.version} with the champion", retries=2)
def gate(
    config: DistillConfig, corpus: CorpusReference, registered: Registered, dry_run: bool = False
) -> GateReport:
    """Judge a version against the champion."""
    rows = corpus.open()
    return judge(config, rows.splits["held_out"], registered, rows.classes, dry_run)


def read_gate(client: MlflowClient, registered: Registered) -> GateReport | None:
    """Return the comparison stored with a version, if there is one."""
    saved = read_record(client, registered, GATE)
    if saved is None:
        return None
    return replace(TypeAdapter(GateReport).validate_python(saved), reused=True)


def decide(
    comparison: PairedComparison,
    challenger: Latency,
    champion: Latency,
    allowed_drop: float,
    metric: Quality = "accuracy",
) -> tuple[bool, str]:
    """Return whether the challenger wins, and why."""
    gap = f"{comparison.difference.points} of {metric} against the champion"
    ratio = challenger.p95_ms / champion.p95_ms
    speed = f"{ratio:.2g}× the champion's p95 latency"
    if comparison.verdict is Verdict.BEATS:
        return True, f"{comparison.verdict}: {gap} at {speed}"
    is_noise = ratio * (1 + find_band([challenger, champion])) >= 1
    if comparison.difference.low >= -allowed_drop and ratio < CLEARLY_FASTER and not is_noise:
        return True, f"as good within {100 * allowed_drop:g} points ({gap}) at {speed}"
    return False, f"{comparison.verdict}: {gap} at {speed}"


def _still_counts(earlier: GateReport, champion: int | None, basis: str) -> bool:
    """Return whether an earlier comparison still refuses a version.

    A comparison that allowed the promotion is made again with the present files; so is a refusal
    without a comparison, because its cause may have been fixed.
    """
    refused = earlier.verdict is not None and not earlier.promote
    return refused and (earlier.compared_to, earlier.basis) == (champion, basis)


def _compare(
    config: DistillConfig,
    held_out: Split,
    registered: Registered,
    plain: GateReport,
    classes: tuple[str, ...],
) -> GateReport:
    """Return the report with the comparison filled in."""
    challenger = ask(registered.uri, held_out)
    client = MlflowClient(config.tracking.uri)
    tags, measured = tags_of(client, registered), read_measured(client, registered)
    changed = measured and find_change(challenger, measured, held_out, classes)
    if changed:
        return replace(plain, reason=changed)
    if plain.compared_to is None:
        return _judge_first(config, tags, plain)
    champion = Registered(registered.model, plain.compared_to, reused=True)
    logger.info("gate: version %d against champion %d", registered.version, champion.version)
    try:
        reigning = ask(champion.uri, held_out)
    except UnopenedError as error:
        return _replace_unopened(config, tags, champion, plain, error)
    gold = held_out.decisions(len(classes))
    if gold is None:
        return replace(plain, reason="held_out has no gold labels, so nothing can be proven")
    metric = config.select.metric
    pair = compare_asked(challenger, reigning, held_out, classes, config.measure, metric)
    assert pair.comparison is not None  # gold is there
    allowed = config.registry.allowed_drop
    promote, reason = decide(pair.comparison, *pair.latencies, allowed, metric)
    scarce = "" if promote else name_scarce(gold, classes, metric)
    ours, theirs = stand(pair)
    return replace(
        plain,
        promote=promote,
        reason=f"{reason}; {scarce}" if scarce else reason,
        verdict=pair.comparison.verdict,
        difference=pair.comparison.difference,
        metric=metric,
        challenger=ours,
        champion=theirs,
    )


def stand(pair: SideBySide) -> tuple[Standing, Standing]:
    """Return how good and how fast each of two models is that were compared on gold."""
    assert pair.qualities is not None
    assert pair.macro_f1 is not None
    ours, theirs = (
        Standing(one, macro_f1, latency.p50_ms, latency.p95_ms)
        for one, macro_f1, latency in zip(
            pair.qualities, pair.macro_f1, pair.latencies, strict=True
        )
    )
    return ours, theirs


def _judge_first(config: DistillConfig, tags: Mapping[str, str], plain: GateReport) -> GateReport:
    """Return whether a version may become the first champion: nobody to beat is no reason."""
    verdict = tags.get(VERDICT, "unknown")
    if config.registry.first == "any" or verdict in (Verdict.BEATS, CONTROL):
        first = f"no champion yet: version {plain.version} is the first"
        return replace(plain, promote=True, reason=first)
    return replace(
        plain,
        reason="there is no champion yet, but a first one must BEAT the same student without its "
        f"teacher, and the verdict on this one is {verdict}. It stays {CHALLENGER}; "
        "`registry.first: any` lets it through",
    )


def read_measured(client: MlflowClient, registered: Registered) -> Measured | None:
    """Return what was measured of a version's student; None for a version of another origin."""
    saved = read_record(client, registered, MEASURED)
    return Measured(**saved) if saved else None


def find_change(
    asked: Asked, measured: Measured, held_out: Split, classes: tuple[str, ...]
) -> str | None:
    """Return how a version's quality differs from that of its student when measured, if it does."""
    known = join_classes(classes, asked)
    gold = read_gold(held_out, classes, known)
    if gold is None or measured.rows != held_out.digest:
        return None
    value = plain_value(quality(measured.metric, gold, asked.decide(known)), len(held_out))
    if abs(value - measured.value) <= SAME:
        return None
    return (
        f"its {measured.metric} is {value:.4f} as registered, but was {measured.value:.4f} when "
        "its student was measured: the registered files are not those"
    )


def _replace_unopened(
    config: DistillConfig,
    tags: Mapping[str, str],
    champion: Registered,
    plain: GateReport,
    error: UnopenedError,
) -> GateReport:
    """Return the report if the champion cannot answer: only the same student may replace it."""
    student = tags_of(MlflowClient(config.tracking.uri), champion).get(STUDENT)
    if student is not None and student == tags.get(STUDENT):
        reason = f"it is the student of version {champion.version}, which cannot be opened any more"
        return replace(plain, promote=True, reason=reason)
    return replace(
        plain,
        reason=f"champion {champion.version} cannot be compared with: {error} Put its files back, "
        "roll back with `potstill rollback distill.yaml`, or take the alias champion off it in "
        "MLflow",
    )


def _write_gate(client: MlflowClient, registered: Registered, report: GateReport) -> None:
    """Keep the comparison with a version."""
    saved = {key: value for key, value in asdict(report).items() if key != "reused"}
    answer = "may become champion" if report.promote else "refused"
    keep_record(client, registered, GATE, saved, words=f"{answer}: {report.brief}")
