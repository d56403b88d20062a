"""What the report says of the choice: promises, the cheap control, how stable it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.students.controls import WORDS_ON_GOLD

if TYPE_CHECKING:
    from distill_tasks.results.findings import Findings
    from distill_tasks.scoring.promises import PromiseTest


def say_promises(findings: Findings) -> str:
    """Return which promises the chosen student keeps on held-out; empty where none were made."""
    tests = findings.proof.promises.get(findings.selection.chosen or "", [])
    if not tests:
        return ""
    return f"Promises kept on held-out: {'; '.join(map(say_promise, tests))}."


def say_promise(test: PromiseTest) -> str:
    """Return a promise with what held-out says of it, and how sure that is."""
    sure = "surely" if test.is_kept("surely") else "by the estimate; the interval reaches below"
    return f"{test} ({sure if test.is_kept('point') else 'broken'})"


def say_words(findings: Findings) -> str:
    """Return that words on gold do as well as the chosen student; empty where surely not."""
    comparison = findings.proof.against_words.get(findings.selection.chosen or "")
    if comparison is None or comparison.difference.low > 0:
        return ""
    control = findings.held_out.models[WORDS_ON_GOLD].quality
    return (
        f"No success of distillation: {WORDS_ON_GOLD} (TF-IDF and logistic regression, no teacher) "
        f"does as well, {findings.metric} {control}; the student less it: "
        f"{comparison.difference.points}.{_offer_words(findings)}"
    )


def _offer_words(findings: Findings) -> str:
    """Return how to register words on gold instead; empty where they were not trained to serve."""
    latency = findings.latencies.by_name.get(WORDS_ON_GOLD)
    if latency is None:
        return ""
    if findings.config.registry.candidate == WORDS_ON_GOLD:
        served = f"with numpy alone, p95 {latency.p95_ms:.3g} ms"
        return f" It is what is registered, as registry.candidate asks: served {served}."
    return (
        f" It is served with numpy alone, p95 {latency.p95_ms:.3g} ms, and logged beside the "
        f"students: to take it instead, set `registry.candidate: {WORDS_ON_GOLD}` and run again, "
        "which trains nothing."
    )


def say_stability(findings: Findings) -> str:
    """Return how often the same candidate would come first, and what settles a toss-up."""
    selection, stability = findings.selection, findings.selection.stability
    if stability is None or not stability.shares:
        return ""
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in stability.shares.items())
    drawn = f"With other validation rows drawn from the same, first would come: {shares}."
    if stability.toss_up is None:
        return drawn
    one, other = stability.toss_up
    rows = stability.rows_to_settle
    now = next(c for c in selection.candidates if c.name == one).quality.rows
    settle = (
        f"about {rows:,} validation rows would settle it, there are {now:,}"
        if rows is not None and rows > now
        else "name what matters more, accuracy or speed, by `choose: budget` or `most_accurate`"
    )
    return f"{drawn} This choice is a toss-up between {one} and {other}: {settle}."


def say_ties(findings: Findings) -> str:
    """Return which candidates are as good and as fast as the chosen one; empty where none is."""
    chosen = findings.selection.chosen
    ties = findings.selection.ties.get(chosen or "", [])
    if not ties:
        return ""
    return (
        f"{chosen} is tied with {', '.join(ties)} in quality and latency, within the noise; it was "
        "taken as the smallest of them."
    )
