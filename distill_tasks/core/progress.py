"""Progress of trainings: each one writes its steps to a file, which the displays follow."""

from __future__ import annotations

import contextvars
import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import say_error
from distill_tasks.core.wording import say_time, say_value

logger = logging.getLogger("potstill")

FOLDER = "progress"
"""The folder of the store with the progress files; removed when nobody follows them any more."""
LOSSES = 50
"""How often a training reports its loss, besides the end of each epoch."""
SECONDS_BETWEEN_WRITES = 0.25
"""Steps of one training are written together, since opening the file takes the longest."""
SECONDS_BETWEEN_LOOKS = 0.25
"""How often the displays look for new lines."""


@dataclass(frozen=True)
class TrainingStep:
    """The progress of one training at one step."""

    name: str
    """Name of the candidate, or of another training such as the teacher's."""
    step: int = 0
    steps: int = 0
    """Steps of the whole training; 0 if it has no steps or has not reached the first."""
    share: float = 1.0
    """Share of the whole training at which this part of it ends: its rung of the halving."""
    loss: float | None = None
    """Mean over the steps since the last reported loss; None at steps that report none."""
    accuracy: float | None = None
    """Accuracy on validation, reported at the end of an epoch."""
    rows_per_s: float | None = None
    seconds_left: float | None = None
    """Seconds until the end of this part at its present speed."""
    seconds: float = 0.0
    """Seconds since this part began."""

    @property
    def begins(self) -> bool:
        """Whether this event reports no step, only that a training begins or continues."""
        return self.steps == 0

    @property
    def percent(self) -> float:
        """How much of the whole training is done."""
        return 100 * self.step / self.steps if self.steps else 0.0

    @property
    def rung(self) -> str:
        """The share of the training at which this part of it ends."""
        return f"{100 * self.share:.3g} %"

    def after(self, before: TrainingStep) -> TrainingStep:
        """Return this step, with values that it lacks taken from an earlier one.

        A training that begins takes nothing from an earlier training of the same name.
        """
        if self.step == 0:
            return self
        return replace(
            self,
            loss=before.loss if self.loss is None else self.loss,
            accuracy=before.accuracy if self.accuracy is None else self.accuracy,
            rows_per_s=before.rows_per_s if self.rows_per_s is None else self.rows_per_s,
        )

    def __str__(self) -> str:
        """Return everything known, in one line."""
        known = [
            f"step {self.step} of {self.steps}",
            f"rung {self.rung}" if self.share < 1 else "",
            "" if self.loss is None else f"loss {say_value(self.loss)}",
            "" if self.accuracy is None else f"accuracy {say_value(self.accuracy)}",
            "" if self.rows_per_s is None else f"{say_value(self.rows_per_s)} rows/s",
            f"{say_time(self.seconds_left)} left" if self.seconds_left else "",
        ]
        return f"{self.name}: {', '.join(part for part in known if part)}"


@dataclass(frozen=True)
class TrainingEnd:
    """The event that one training, or a part of it, has ended."""

    name: str
    how: Literal["done", "failed"]


Event = TrainingStep | TrainingEnd


@dataclass(frozen=True)
class ProgressFile:
    """The file to which one training writes its progress, one JSON line for each event.

    It is not in the training's draft, because the draft of a short training is gone before anyone
    reads it. Any process may write it, and any other may follow it.
    """

    store: Path
    name: str

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.store / FOLDER / f"{digest(self.name)}.jsonl"

    @contextmanager
    def told(self) -> Iterator[None]:
        """Write that a training begins, and at the end of the block how it ended."""
        self.write([TrainingStep(self.name)])
        try:
            yield
        except BaseException:
            with suppress(OSError):  # the first error matters more
                self.write([TrainingEnd(self.name, "failed")])
            raise
        self.write([TrainingEnd(self.name, "done")])

    def write(self, events: Iterable[Event]) -> None:
        """Append events to the file."""
        lines = "".join(f"{json.dumps(vars(event))}\n" for event in events)
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(lines)

    def read(self) -> list[TrainingStep]:
        """Return the steps that were written since the training last began."""
        steps: list[TrainingStep] = []
        for event in _parse(self.path.read_bytes()):
            if isinstance(event, TrainingStep):
                steps.append(event)
                if event.begins:
                    steps.clear()
        return steps


def list_running(store: Path) -> list[TrainingStep]:
    """Return the latest step of every training in a store that has begun and not ended.

    Those of a killed run seem to run still: ask first whether a run holds the store.
    """
    running: dict[str, TrainingStep] = {}
    for path in sorted((store / FOLDER).glob("*.jsonl")):
        with suppress(OSError, ValueError, TypeError):  # removed, or by another version
            for event in _parse(_cut(path.read_bytes())):
                before = running.pop(event.name, TrainingStep(event.name))
                if isinstance(event, TrainingStep):
                    running[event.name] = event.after(before)
    return list(running.values())


class Training:
    """Reports the progress of one training, at a cost of microseconds a step.

    Without a file it reports nothing.
    """

    def __init__(
        self,
        progress: ProgressFile | None,
        steps: int,
        rows_per_step: int,
        share: float = 1.0,
        done: int = 0,
    ) -> None:
        self.progress = progress
        self.steps = steps
        self.rows_per_step = rows_per_step
        self.share = share
        self.done = done
        self.end = math.ceil(share * steps)
        self.losses_every = math.ceil(steps / LOSSES)
        self._began = time.monotonic()
        self._step = done
        self._losses: list[float] = []
        self._unwritten: list[TrainingStep] = []
        self._next_write = 0.0
        self.reach(done)

    def wants_loss(self, step: int) -> bool:
        """Return whether the loss should be reported at a step."""
        return step % self.losses_every == 0

    def take(self, loss: float, ends_epoch: bool = False) -> None:
        """Report that one more step is done; its loss counts in the next mean."""
        self._step += 1
        self._losses.append(loss)
        mean = None
        if ends_epoch or self.wants_loss(self._step):
            mean = sum(self._losses) / len(self._losses)
            self._losses.clear()
        self.reach(self._step, mean)

    def reach(self, step: int, loss: float | None = None, accuracy: float | None = None) -> None:
        """Report that a step is done, with its loss and accuracy where they are known.

        A step with neither is skipped if the last write was a moment ago.
        """
        if self.progress is None:
            return
        seconds = time.monotonic() - self._began
        writes = step >= self.end or accuracy is not None or seconds >= self._next_write
        if writes or loss is not None:
            name, (pace, left) = self.progress.name, self._estimate(step, seconds)
            known = name, step, self.steps, self.share, loss, accuracy, pace, left, seconds
            self._unwritten.append(TrainingStep(*known))
        if writes:
            self.progress.write(self._unwritten)
            self._unwritten.clear()
            self._next_write = seconds + SECONDS_BETWEEN_WRITES

    def _estimate(self, step: int, seconds: float) -> tuple[float | None, float | None]:
        """Return the rows per second so far, and the seconds left at that speed."""
        taken = step - self.done
        if taken <= 0 or seconds <= 0:
            return None, None
        left = max(0, self.end - step) * seconds / taken
        return taken * self.rows_per_step / seconds, left


class Watcher(Protocol):
    """A display of the progress of trainings."""

    def hear(self, event: Event) -> None:
        """Receive an event of a training."""

    def show(self) -> None:
        """Show the events received, if it is time to."""

    def close(self) -> None:
        """Show the remaining events, and end the display."""


@contextmanager
def follow(store: Path, watchers: Sequence[Watcher]) -> Iterator[None]:
    """Inside the block, report every training in a store, of any process, to watchers.

    They run in a separate thread; an error of theirs ends the display, never a training.
    """
    folder, over = store / FOLDER, threading.Event()
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed
    work = contextvars.copy_context().run  # by it Prefect assigns artifacts to the run
    follower = _Follower(folder, watchers)
    thread = threading.Thread(target=work, args=(follower.run, over), name=FOLDER, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


class _Follower:
    """Reads the files of a folder as they grow."""

    def __init__(self, folder: Path, watchers: Sequence[Watcher]) -> None:
        self.folder = folder
        self.watchers = watchers
        self._read: dict[Path, int] = {}
        """How many bytes of each file have been read."""

    def run(self, over: threading.Event) -> None:
        """Look for new events regularly, and a last time at the end."""
        try:
            with ExitStack() as stack:
                for watcher in self.watchers:
                    stack.enter_context(closing(watcher))
                while not over.wait(SECONDS_BETWEEN_LOOKS):
                    self._look()
                self._look()
        except Exception as error:  # noqa: BLE001  # a failing display must not end a training
            logger.warning("the progress of trainings is no longer shown: %s", say_error(error))

    def _look(self) -> None:
        for path in self._grown():
            for event in self._read_on(path):
                for watcher in self.watchers:
                    watcher.hear(event)
        for watcher in self.watchers:
            watcher.show()

    def _grown(self) -> list[Path]:
        """Return the files with new lines, the least recently changed first."""
        found = [(path.stat(), path) for path in self.folder.glob("*.jsonl")]
        grown = [(s.st_mtime_ns, path) for s, path in found if s.st_size > self._read.get(path, 0)]
        return [path for _, path in sorted(grown)]

    def _read_on(self, path: Path) -> Iterator[Event]:
        """Return the events of the new lines that are complete."""
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            found = file.read()
        whole = _cut(found)
        self._read[path] = self._read.get(path, 0) + len(whole)
        return _parse(whole)


def _cut(found: bytes) -> bytes:
    """Return the lines that are complete."""
    return found[: found.rfind(b"\n") + 1]


def _parse(lines: bytes) -> Iterator[Event]:
    for line in lines.splitlines():
        fields = json.loads(line)
        yield TrainingEnd(**fields) if "how" in fields else TrainingStep(**fields)
