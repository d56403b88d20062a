"""How far trainings are: each tells its steps in a file, and whoever shows them follows it."""

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
from datetime import timedelta
from pathlib import Path
from typing import Literal, Protocol

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import say_error

logger = logging.getLogger("potstill")

FOLDER = "progress"
"""Of a store: where trainings tell their steps, until whoever follows them has done so."""
LOSSES = 50
"""A training tells its loss so often, beside the ends of its epochs."""
SECONDS_BETWEEN_WRITES = 0.25
"""Of one training, since opening a file takes longer than telling a step."""
SECONDS_BETWEEN_LOOKS = 0.25
"""Of whoever follows."""


@dataclass(frozen=True)
class TrainingStep:
    """How far one training is."""

    name: str
    """Of the candidate, or of whatever else trains."""
    step: int = 0
    steps: int = 0
    """Of the whole training; 0 where it takes none or its first is not yet near."""
    share: float = 1.0
    """Of the whole training, where this part of it ends: the rung it is on."""
    loss: float | None = None
    """Mean of the steps since it was last told; told at some steps alone."""
    accuracy: float | None = None
    """On validation, told at the end of an epoch."""
    rows_per_s: float | None = None
    seconds_left: float | None = None
    """Until the end of this part, at the pace it has."""
    seconds: float = 0.0
    """Since this part began."""

    @property
    def begins(self) -> bool:
        """Return whether this tells no step, only that a training begins or goes on."""
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
        """Return this step with what an earlier one told and this one does not.

        A training that begins knows nothing of an earlier one of its name.
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
        """Return all that is known, in one line."""
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
    """That one training, or a part of it, is over."""

    name: str
    how: Literal["done", "failed"]


Event = TrainingStep | TrainingEnd


@dataclass(frozen=True)
class ProgressFile:
    """The file in which one training tells how far it is, one JSON line for each event.

    It lies beside what the store keeps, not in a draft: a short training's draft is gone before
    anybody looked. Any process may write it, and any other follow it.
    """

    store: Path
    name: str

    @property
    def path(self) -> Path:
        """Return where it lies."""
        return self.store / FOLDER / f"{digest(self.name)}.jsonl"

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tell that a training begins, and how it ended."""
        self.write([TrainingStep(self.name)])
        try:
            yield
        except BaseException:
            with suppress(OSError):  # the first error says more
                self.write([TrainingEnd(self.name, "failed")])
            raise
        self.write([TrainingEnd(self.name, "done")])

    def write(self, events: Iterable[Event]) -> None:
        """Add events."""
        lines = "".join(f"{json.dumps(vars(event))}\n" for event in events)
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(lines)

    def read(self) -> list[TrainingStep]:
        """Return the steps that were told since the training last began."""
        steps: list[TrainingStep] = []
        for event in _parse(self.path.read_bytes()):
            if isinstance(event, TrainingStep):
                steps.append(event)
                if event.begins:
                    steps.clear()
        return steps


class Training:
    """Tells how far one training is; that costs microseconds a step.

    Without a file it tells nobody.
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
        """Return whether the loss should be told at a step."""
        return step % self.losses_every == 0

    def take(self, loss: float, ends_epoch: bool = False) -> None:
        """Tell that one more step is done; its loss counts in the mean that is told next."""
        self._step += 1
        self._losses.append(loss)
        mean = None
        if ends_epoch or self.wants_loss(self._step):
            mean = sum(self._losses) / len(self._losses)
            self._losses.clear()
        self.reach(self._step, mean)

    def reach(self, step: int, loss: float | None = None, accuracy: float | None = None) -> None:
        """Tell that a step is done, if that is news; loss and accuracy where they are known there.

        A step that another one will soon follow, and that has neither, is none.
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
        """Return the rows per second so far, and the seconds that are left at that pace."""
        taken = step - self.done
        if taken <= 0 or seconds <= 0:
            return None, None
        left = max(0, self.end - step) * seconds / taken
        return taken * self.rows_per_step / seconds, left


class Watcher(Protocol):
    """Whoever shows how far trainings are."""

    def hear(self, event: Event) -> None:
        """Take in what a training told."""

    def show(self) -> None:
        """Show what was heard, if it is time."""

    def close(self) -> None:
        """Show what was not yet shown, and end."""


@contextmanager
def follow(store: Path, watchers: Sequence[Watcher]) -> Iterator[None]:
    """Have watchers told of every training in a store meanwhile, whichever process it runs in.

    They work in a thread of their own; an error of theirs ends the showing, never a training.
    """
    folder, over = store / FOLDER, threading.Event()
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    work = contextvars.copy_context().run  # Prefect knows by its context whose artifacts they are
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
        """How many bytes of each file were read."""

    def run(self, over: threading.Event) -> None:
        """Look now and then, and a last time when it is over."""
        try:
            with ExitStack() as stack:
                for watcher in self.watchers:
                    stack.enter_context(closing(watcher))
                while not over.wait(SECONDS_BETWEEN_LOOKS):
                    self._look()
                self._look()
        except Exception as error:  # noqa: BLE001  # what is only shown must not end a training
            logger.warning("how far trainings are is not shown any more: %s", say_error(error))

    def _look(self) -> None:
        for path in self._grown():
            for event in self._read_on(path):
                for watcher in self.watchers:
                    watcher.hear(event)
        for watcher in self.watchers:
            watcher.show()

    def _grown(self) -> list[Path]:
        """Return the files with something new, those first that were left alone longest."""
        found = [(path.stat(), path) for path in self.folder.glob("*.jsonl")]
        grown = [(s.st_mtime_ns, path) for s, path in found if s.st_size > self._read.get(path, 0)]
        return [path for _, path in sorted(grown)]

    def _read_on(self, path: Path) -> Iterator[Event]:
        """Yield the events of the lines that are whole by now."""
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._read[path] = self._read.get(path, 0) + len(whole)
        return _parse(whole)


def _parse(lines: bytes) -> Iterator[Event]:
    for line in lines.splitlines():
        fields = json.loads(line)
        yield TrainingEnd(**fields) if "how" in fields else TrainingStep(**fields)


def say_time(seconds: float) -> str:
    """Return a time as people read it, in hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def say_value(value: float | None) -> str:
    """Return a value with three digits, without an exponent where it is large."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
