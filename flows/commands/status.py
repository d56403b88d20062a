"""The command that says how things stand: status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill_tasks.config import load_config
from distill_tasks.core.errors import shortlist
from distill_tasks.core.wording import say_count, say_time
from flows.answers import Answer
from flows.commands.options import Config, Json
from flows.printing import out

if TYPE_CHECKING:
    from flows.status_answers import PastRunAnswer, RunningAnswer, StatusAnswer, WaitingAnswer

MOST_CHARACTERS = 200
"""Of what became of a run; MLflow has it whole."""


def status(config: Config, *, json: Json = False) -> Answer:
    """Say what runs, what is done, what the next run reuses, who waits, and who is champion.

    It asks no teacher and reads no rows, and it works without a Prefect server.

    Example: potstill status distill.yaml
    """
    settings = load_config(config)
    from flows.status import gather_status

    found = gather_status(settings, config)
    if not json:
        print_status(found)
    return found


def print_status(found: StatusAnswer) -> None:
    """Print how things stand, what runs first."""
    first, *others = say_running(found.running, found.work_dir)
    out.say(first, name=found.name)
    for line in [*others, say_store(found)]:
        out.say(line)
    if found.unanswered is not None:
        out.say(f"{found.unanswered}. Its runs and versions are not shown.", style="yellow")
        return
    waiting = [line for one in found.waiting for line in say_waiting(one)]
    for line in [*say_runs(found.runs), say_champion(found), *waiting]:
        out.say(line)


def say_running(running: RunningAnswer | None, work_dir: str) -> list[str]:
    """Return what runs now, in lines; those further down are indented."""
    if running is None:
        return [f"nothing is running in {work_dir}"]
    where = f" (process {running.pid} on {running.host}, since {running.since})"
    lines = [f"running: {running.run}{where if running.pid else ''}"]
    if running.stage is not None:
        left = running.seconds_left
        when = "" if left is None else f", about {say_time(left)} left"
        lines.append(f"  stage {running.stage_number} of {running.stages}{when}: {running.stage}")
    for one in running.training:
        steps = f": step {one.step} of {one.steps}" if one.steps else ""
        lines.append(f"  training {one.name}{steps}")
    links = {"Prefect": running.flow_run_link, "MLflow": running.link}
    lines += [f"  {name}: {link}" for name, link in links.items() if link]
    return lines


def say_store(found: StatusAnswer) -> str:
    """Return what the next run finds, in a sentence."""
    store = found.store
    of = len(store.trained) + len(store.missing)
    parts = [
        f"{store.answers:,} answers of teachers",
        f"{len(store.trained)} of {say_count(of, 'student')} of the grid",
        f"{say_count(store.begun, 'interrupted training')} to go on with" if store.begun else "",
    ]
    missing = f"; not trained yet: {shortlist(store.missing)}" if store.missing else ""
    held = ", ".join(filter(None, parts))
    return f"The next run reuses, where nothing else changed: {held}{missing}."


def say_champion(found: StatusAnswer) -> str:
    """Return who is champion and since when, in a sentence."""
    champion = found.champion
    if champion is None:
        return f"{found.model} has no champion yet."
    previous = f"; previous: version {found.previous}" if found.previous else ""
    challenger = f"; challenger: version {found.challenger}" if found.challenger else ""
    if champion.since is None:
        return (
            f"Champion of {found.model}: version {champion.version}, whose alias was moved in "
            f"MLflow{previous}{challenger}."
        )
    since = champion.since[:16].replace("T", " ")
    return (
        f"Champion of {found.model}: version {champion.version} since {since} UTC, by "
        f"{champion.by} ({champion.why}){previous}{challenger}."
    )


def say_waiting(waiting: WaitingAnswer) -> list[str]:
    """Return what a version waits for, and the command that answers, in lines."""
    if waiting.decision != "pending":
        return [f"Version {waiting.version} is {waiting.decision}: {waiting.command}"]
    return [
        f"Version {waiting.version} waits for a review: {waiting.link}",
        f"  {waiting.command}, or --reject",
    ]


def say_runs(runs: Sequence[PastRunAnswer]) -> list[str]:
    """Return what the last runs came to, a line each, and where the latest is."""
    if not runs:
        return ["There is no run in MLflow yet."]
    lines = ["The last runs (UTC):"]
    for run in runs:
        chosen = f"{run.chosen} {run.verdict or ''}".rstrip() if run.chosen else ""
        became = (run.outcome or "").partition("\n")[0][:MOST_CHARACTERS]
        about = "; ".join(filter(None, [chosen, became]))
        when = run.started[:16].replace("T", " ")
        lines.append(f"  {when} {run.status.lower()}{': ' if about else ''}{about}")
    return [*lines, f"  {runs[0].link}"]
