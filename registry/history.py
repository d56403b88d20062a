"""The history of a registered model: one append-only table of its decisions and its looks.

The table is the tags of a run of its own, one tag for each line: MLflow writes a tag in one step,
so that two processes never write over each other, and one request reads them all.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from mlflow.entities import ViewType
from mlflow.utils.git_utils import get_git_commit

from distill_tasks.core.notes import Note, Rank
from distill_tasks.core.wording import say_count
from distill_tasks.scoring.looks import ALPHA, Look
from distill_tasks.tracking.store import make_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from distill_tasks.data.corpus import Split

EXPERIMENT = "potstill-history"
MODEL = "potstill.history_of"
"""Tag of the run that holds a model's history: the model's name."""
MOST_RUNS = 100
EVENT = "event."
LOOK = "look."
MOST_CHARACTERS = 2_000
"""The longest reason that is kept whole."""

Kind = Literal[
    "registered",
    "gate passed",
    "gate failed",
    "gate inconclusive",
    "review pending",
    "approved",
    "rejected",
    "promoted",
    "rolled back",
    "moved by hand",
]


ANNOUNCED: dict[Kind, str] = {
    "registered": "potstill.challenger.registered",
    "gate passed": "potstill.gate.passed",
    "gate failed": "potstill.gate.failed",
    "gate inconclusive": "potstill.gate.failed",
    "review pending": "potstill.review.pending",
    "approved": "potstill.review.approved",
    "rejected": "potstill.review.rejected",
    "promoted": "potstill.champion.promoted",
    "rolled back": "potstill.champion.rolled_back",
    "moved by hand": "potstill.champion.moved_by_hand",
}
"""The names of the events in Prefect; their resource is `potstill.model.<name>`."""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _find_flow_run() -> str | None:
    if "prefect" not in sys.modules:  # it takes a second to load, and there is no flow run then
        return None
    from distill_tasks.stages.flow_run import current_flow_run

    return current_flow_run()


def name_user() -> str:
    """Return the name of the user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"


@dataclass(frozen=True)
class Event:
    """One decision about a version: what, who, when, why, and where it came from."""

    kind: Kind
    version: int
    why: str = ""
    before: int | None = None
    """The champion before, where the champion changed."""
    verdict: str | None = None
    look: int | None = None
    """Which look at the held-out rows the verdict was."""
    run: str | None = None
    by: str = field(default_factory=name_user)
    flow_run: str | None = field(default_factory=_find_flow_run)
    commit: str | None = field(default_factory=lambda: get_git_commit(str(Path.cwd())))
    at: str = field(default_factory=_now)
    """UTC, ISO 8601."""
    id: str = field(default_factory=lambda: uuid4().hex[:8])

    @property
    def key(self) -> str:
        """The name of its tag; in the order of names events are in the order of time."""
        return f"{EVENT}{self.at}.{self.id}"


CHANGES: tuple[Kind, ...] = ("promoted", "rolled back", "moved by hand")
"""Events after which another version is champion."""


def find_former(events: Sequence[Event], aliases: Mapping[str, int]) -> set[int]:
    """Return every version that was champion once and is not now."""
    changes = [event for event in events if event.kind in CHANGES]
    once = {event.version for event in changes} | {event.before for event in changes}
    previous = {aliases["previous"]} if "previous" in aliases else set()
    return {version for version in once | previous if version} - {aliases.get("champion")}


def find_hand_move(events: Sequence[Event], champion: int | None) -> Event | None:
    """Return the event of a champion that somebody changed by hand; None if nobody did.

    ``champion`` is the version that has the alias now.
    """
    changes = [event for event in events if event.kind in CHANGES]
    if champion is None or not changes or changes[-1].version == champion:
        return None
    passed = {event.version for event in events if event.kind == "gate passed"}
    proof = "passed the gate" if champion in passed else "never passed the gate"
    why = f"the alias was moved in MLflow, to a version that {proof}"
    mark = f"hand-{changes[-1].id}-{champion}"
    return Event("moved by hand", champion, why, before=changes[-1].version, by="unknown", id=mark)


class History:
    """The history of one registered model."""

    def __init__(self, client: MlflowClient, model: str) -> None:
        self.client = client
        self.model = model

    def append(self, event: Event) -> None:
        """Add an event, unless one of its id is there already, and let Prefect know."""
        runs = self._runs()
        if any(event.id == known.id for known in _read_events(runs)):
            return
        event = replace(event, why=event.why[:MOST_CHARACTERS])
        self.client.set_tag(self._choose_run(runs), event.key, json.dumps(asdict(event)))
        from distill_tasks.stages.flow_run import announce

        announce(ANNOUNCED[event.kind], self.model, asdict(event))

    def read(self) -> list[Event]:
        """Return all events, the oldest first."""
        return _read_events(self._runs())

    def take_look(self, rows: Split, comparison: str) -> Look:
        """Return the number of a look at held-out rows, which is counted before it is taken.

        ``comparison`` names what is compared: the same comparison is the same look again, also
        after a kill. Two processes at once may both skip a number, and never share one.
        """
        key = f"{LOOK}{rows.digest}.{comparison}"
        runs = self._runs()
        known = _join_lines(runs).get(key, "")
        if known.isdigit():
            return Look(int(known), len(rows))
        run_id = self._choose_run(runs)
        self.client.set_tag(run_id, key, "reserved")
        number = self.count_looks(rows.digest)
        self.client.set_tag(run_id, key, str(number))
        return Look(number, len(rows))

    def coming_look(self, rows: Split) -> Look:
        """Return the look that the next new comparison on these rows would be."""
        return Look(self.count_looks(rows.digest) + 1, len(rows))

    def count_looks(self, digest: str) -> int:
        """Return how many comparisons there were on rows of a digest."""
        return self.count_all_looks().get(digest, 0)

    def note_looks(self, rows: Split) -> list[Note]:
        """Return what a user should know of the looks at these rows so far."""
        number = self.count_looks(rows.digest)
        if number == 0:
            return []
        look = Look(number, len(rows))
        spent = (
            f"{say_count(number, 'comparison')} on these held-out rows so far: {look.left:.2g} of"
        )
        said = f"the gate made {spent} the alpha of {ALPHA:g} is left"
        if not look.renewal:
            return [Note(Rank.FINE, said)]
        return [Note(Rank.KNOW, f"{said}; {look.renewal}")]

    def count_all_looks(self) -> dict[str, int]:
        """Return how many comparisons there were, by the digest of the rows.

        A number that two processes skipped counts as taken.
        """
        numbers: dict[str, list[str]] = {}
        for key, number in _join_lines(self._runs()).items():
            if key.startswith(LOOK):
                numbers.setdefault(key.removeprefix(LOOK).split(".")[0], []).append(number)
        return {
            rows: max([len(taken), *(int(number) for number in taken if number.isdigit())])
            for rows, taken in numbers.items()
        }

    @property
    def run_id(self) -> str:
        """The run that new lines are written to, which is made if there is none."""
        return self._choose_run(self._runs())

    def _choose_run(self, runs: Sequence[Run]) -> str:
        """Return the first run of a history that is not in the bin; make one if there is none."""
        active = [run for run in runs if run.info.lifecycle_stage == "active"]
        if active:
            return str(active[0].info.run_id)
        experiment = make_experiment(self.client, EXPERIMENT)
        tags = {MODEL: self.model, "mlflow.user": name_user()}
        run = self.client.create_run(experiment, run_name=self.model, tags=tags)
        self.client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def _runs(self) -> list[Run]:
        """Return all runs that hold this history, those in the bin included.

        There are two where two processes wrote the first lines at the same time.
        """
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        return list(
            self.client.search_runs(
                [experiment.experiment_id],
                f"tags.`{MODEL}` = '{self.model}'",
                run_view_type=ViewType.ALL,
                max_results=MOST_RUNS,
                order_by=["attributes.start_time ASC"],
            )
        )


def _join_lines(runs: Sequence[Run]) -> dict[str, str]:
    """Return the lines that the runs of a history hold."""
    return {key: value for run in runs for key, value in run.data.tags.items()}


def _read_events(runs: Sequence[Run]) -> list[Event]:
    """Return the events that the runs of a history hold, the oldest first."""
    lines = _join_lines(runs)
    return [Event(**json.loads(lines[key])) for key in sorted(lines) if key.startswith(EVENT)]
