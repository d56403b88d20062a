"""Comparing a version with the champion on the same rows: what the gate decides by."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import shortlist
from distill_tasks.measuring.latency import find_band
from distill_tasks.results.review import GateReport, Standing
from distill_tasks.scoring.intervals import plain_value
from distill_tasks.scoring.statistics import quality
from distill_tasks.scoring.thresholds import find_missed
from distill_tasks.scoring.verdicts import Verdict, name_scarce
from registry.aliases import CHALLENGER, CONTROL, STUDENT, VERDICT, Registered, tags_of
from registry.comparison import write_comparison
from registry.history import History
from registry.records import find_run, place_record, read_record
from registry.served import UnopenedError, ask, join_classes
from registry.side_by_side import compare_asked, read_gold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient

    from distill_tasks.config import DistillConfig, RegistryConfig
    from distill_tasks.data.corpus import Split
    from distill_tasks.measuring.latency import Latency
    from distill_tasks.scoring.looks import Look
    from distill_tasks.scoring.statistics import Quality
    from distill_tasks.scoring.verdicts import PairedComparison
    from registry.served import Asked
    from registry.side_by_side import SideBySide

logger = logging.getLogger("potstill")

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


@dataclass(frozen=True)
class Case:
    """A version that may become champion, and what it is judged by."""

    config: DistillConfig
    client: MlflowClient
    registered: Registered
    held_out: Split
    classes: tuple[str, ...]
    dry_run: bool

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the version."""
        return tags_of(self.client, self.registered)

    def look(self, champion: Registered) -> Look:
        """Return which look at the rows the comparison is; a dry run counts none."""
        history = History(self.client, self.registered.model)
        if self.dry_run:
            return history.coming_look(self.held_out)
        student = self.tags.get(STUDENT, self.registered.version)
        comparison = digest(student, champion.version, self.config.select.metric)
        return history.take_look(self.held_out, comparison)


def compare(case: Case, plain: GateReport) -> GateReport:
    """Return a gate report with the comparison of a version and the champion filled in."""
    challenger = ask(case.registered.uri, case.held_out)
    measured = read_measured(case.client, case.registered)
    changed = measured and find_change(challenger, measured, case.held_out, case.classes)
    if changed:
        return replace(plain, reason=changed)
    if plain.compared_to is None:
        return _judge_first(case.config.registry, case.tags, plain)
    champion = Registered(case.registered.model, plain.compared_to, reused=True)
    try:
        reigning = ask(champion.uri, case.held_out)
    except UnopenedError as error:
        return _replace_unopened(case, champion, plain, error)
    if set(reigning.model.classes) != set(challenger.model.classes):
        return replace(plain, reason=_name_other_classes(challenger, reigning, champion))
    gold = case.held_out.decisions(len(case.classes))
    if gold is None:
        return replace(plain, reason="held_out has no gold labels, so nothing can be proven")
    look = case.look(champion)
    logger.info("gate: version %d against champion %d, %s", plain.version, champion.version, look)
    pair = compare_asked(
        challenger,
        reigning,
        case.held_out,
        case.classes,
        case.config.measure,
        case.config.select.metric,
        significance=2 * look.alpha,
    )
    judged = _rule(case.config, replace(plain, look=look), pair)
    scarce = "" if judged.promote else name_scarce(gold, case.classes, judged.metric)
    said = (judged.reason, scarce, "" if judged.promote else look.renewal)
    judged = replace(judged, reason="; ".join(part for part in said if part))
    if not case.dry_run:
        _keep_comparison(case, pair, judged)
    return judged


def _keep_comparison(case: Case, pair: SideBySide, report: GateReport) -> None:
    """Keep the page, the table and the picture of a comparison with the run of a version."""
    run_id = find_run(case.client, case.registered)
    with tempfile.TemporaryDirectory() as scratch:
        write_comparison(pair, case.held_out, case.classes, report, Path(scratch))
        case.client.log_artifacts(run_id, scratch, place_record(case.registered, "comparison"))


def _rule(config: DistillConfig, plain: GateReport, pair: SideBySide) -> GateReport:
    """Return the report of a version and the champion side by side."""
    metric, rules = config.select.metric, config.registry
    assert pair.comparison is not None  # gold is there
    promote, reason = decide(pair.comparison, *pair.latencies, rules.allowed_drop, metric)
    ours, theirs = stand(pair)
    missed = find_missed(rules.thresholds, asdict(ours), asdict(theirs))
    return replace(
        plain,
        promote=promote and not missed,
        reason="; ".join([reason, *missed]),
        verdict=pair.comparison.verdict,
        difference=pair.comparison.difference,
        metric=metric,
        challenger=ours,
        champion=theirs,
    )


def _name_other_classes(challenger: Asked, reigning: Asked, champion: Registered) -> str:
    """Return why a champion with other classes is not replaced by a figure alone."""
    ours, theirs = set(challenger.model.classes), set(reigning.model.classes)
    parts = [f"has {shortlist(sorted(ours - theirs))} besides"] if ours - theirs else []
    parts += [f"lacks {shortlist(sorted(theirs - ours))}"] if theirs - ours else []
    return (
        f"its classes are not those of champion {champion.version}: it {' and '.join(parts)}. "
        f"Whoever calls {champion.model} must know first: approve it with an override"
    )


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


def _judge_first(config: RegistryConfig, tags: Mapping[str, str], plain: GateReport) -> GateReport:
    """Return whether a version may become the first champion: nobody to beat is no reason."""
    verdict = tags.get(VERDICT, "unknown")
    if config.first == "any" or verdict in (Verdict.BEATS, CONTROL):
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
    case: Case, champion: Registered, plain: GateReport, error: UnopenedError
) -> GateReport:
    """Return the report if the champion cannot answer: only the same student may replace it."""
    student = tags_of(case.client, champion).get(STUDENT)
    if student is not None and student == case.tags.get(STUDENT):
        reason = f"it is the student of version {champion.version}, which cannot be opened any more"
        return replace(plain, promote=True, reason=reason)
    return replace(
        plain,
        reason=f"champion {champion.version} cannot be compared with: {error} Put its files back, "
        "roll back with `potstill rollback distill.yaml`, or take the alias champion off it in "
        "MLflow",
    )
