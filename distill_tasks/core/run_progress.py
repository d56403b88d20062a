"""Progress of a whole run: at which of its stages it is, and how long the rest may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distill_tasks.core.store import Store
from distill_tasks.core.wording import say_time

SECONDS = "stage_seconds", "last"
"""Kind and name of what a store keeps of how long each stage took when it last had work to do."""
LEAST_SEEN = 0.1
"""The share of a first run, by usual times, that must be done before its end is foretold."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    """Of its function; several stages of a run may be the same function."""
    about: str
    """What it does, for people."""
    usual_s: float
    """Seconds that it took in the demo: what counts is the ratio to the other stages."""


class RunProgress:
    """Follows one run through its stages; any thread may ask where it is."""

    def __init__(self, stages: Sequence[Stage], store: Path) -> None:
        self.stages = stages
        self.store = Store(store)
        self.known: dict[str, float] = self.store.manifest(*SECONDS) or {}
        """Seconds of each stage when it last had work to do in this store, by what it does."""
        self.number = -1
        """Of the present stage, counted from 0; -1 before the first one."""
        self.took: dict[int, float] = {}
        """Seconds of the stages behind that had work to do."""
        self._began = self._stage_began = time.monotonic()
        self._worked = False
        self._lock = threading.Lock()

    @contextmanager
    def told(self, name: str) -> Iterator[list[bool]]:
        """Tell that a stage begins; the block may note in the list whether it had nothing to do."""
        with self._lock:
            self._enter(name)
        reused: list[bool] = []
        yield reused
        self._worked = self._worked or not any(reused)

    def finish(self) -> None:
        """End the last stage and keep how long those took that had work to do."""
        with self._lock:
            self._leave()
        kept = self.known | {self.stages[number].about: s for number, s in self.took.items()}
        with suppress(OSError):  # what it holds is for people alone
            self.store.keep(*SECONDS, kept)

    @property
    def percent(self) -> float:
        """How much of the run is behind, by the usual times of its stages."""
        behind = sum(stage.usual_s for stage in self.stages[: max(self.number, 0)])
        return 100 * behind / sum(stage.usual_s for stage in self.stages)

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds to the end; None where too little is known."""
        pace, elapsed = self._find_pace(), time.monotonic() - self._stage_began
        left = 0.0
        for number in range(max(self.number, 0), len(self.stages)):
            expected = self._expect(self.stages[number], pace)
            if expected is None:
                return None
            left += max(expected - elapsed, 0) if number == self.number else expected
        return left

    def __str__(self) -> str:
        """Return where the run is, in one line."""
        number = max(self.number, 0)
        left = self.seconds_left
        when = (
            f"{say_time(time.monotonic() - self._began)} so far"
            if left is None
            else f"about {say_time(left)} left"
        )
        return f"stage {number + 1} of {len(self.stages)}, {when}: {self.stages[number].about}"

    def _enter(self, name: str) -> None:
        """Go on to the next stage of a name; the present one may be entered several times."""
        if self.number >= 0 and self.stages[self.number].name == name:
            return
        ahead = range(self.number + 1, len(self.stages))
        found = next((n for n in ahead if self.stages[n].name == name), None)
        if found is not None:
            self._leave()
            self.number = found

    def _leave(self) -> None:
        now = time.monotonic()
        if self.number >= 0 and self._worked:
            self.took[self.number] = now - self._stage_began
        self._stage_began, self._worked = now, False

    def _find_pace(self) -> float | None:
        """Return how much slower than usual the stages behind were; None where few are behind."""
        usual = sum(self.stages[number].usual_s for number in self.took)
        if usual < LEAST_SEEN * sum(stage.usual_s for stage in self.stages):
            return None
        return sum(self.took.values()) / usual

    def _expect(self, stage: Stage, pace: float | None) -> float | None:
        if stage.about in self.known:
            return self.known[stage.about]
        return None if pace is None else pace * stage.usual_s


_present: list[RunProgress] = []
"""The run of this process, if it shows its progress; the last one where runs are nested."""


@contextmanager
def following(run: RunProgress) -> Iterator[None]:
    """Have every stage that begins inside the block told to a run."""
    _present.append(run)
    try:
        yield
    finally:
        _present.remove(run)
        run.finish()


@contextmanager
def told_stage(name: str) -> Iterator[list[bool]]:
    """Tell the present run, if there is one, that a stage begins."""
    if not _present:
        yield []
        return
    with _present[-1].told(name) as reused:
        yield reused
