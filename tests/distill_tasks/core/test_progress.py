import itertools
import json
import logging
import math
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import clock_of
from hypothesis import given
from hypothesis import strategies as st
from samples import make_gold_set

from distill_tasks.core import progress
from distill_tasks.core.progress import (
    FOLDER,
    LOSSES,
    ProgressFile,
    Training,
    TrainingEnd,
    TrainingStep,
    follow,
)
from distill_tasks.results.trained import join_losses
from distill_tasks.students import LayersStudent, StaticStudent


@pytest.fixture
def clock():
    """A clock that stands still until it is moved."""
    with clock_of(progress, now=100.0) as mine:
        yield mine


class Listener:
    """A watcher that keeps what it hears, and who runs it."""

    def __init__(self):
        self.events, self.threads, self.closed = [], set(), 0

    def hear(self, event):
        self.events.append(event)

    def show(self):
        self.threads.add(threading.current_thread())

    def close(self):
        self.closed += 1

    @property
    def steps(self):
        return [event for event in self.events if isinstance(event, TrainingStep)]


def told(run, name="layers-1"):
    """Return all that was told while something runs with a file to tell it in."""
    with tempfile.TemporaryDirectory() as folder:
        file = ProgressFile(Path(folder), name)
        with file.told():
            run(file)
        return file.read()


def test_a_training_tells_its_steps_with_their_pace(clock):
    def run(file):
        training = Training(file, steps=80, rows_per_step=32, share=0.25, done=10)
        clock.now += 4
        training.reach(14)
        training.reach(14, loss=0.5)
        training.reach(14, accuracy=0.9)

    first, *others = told(run)
    assert first == TrainingStep("layers-1", 10, 80, 0.25)
    step = TrainingStep("layers-1", 14, 80, 0.25, rows_per_s=32.0, seconds_left=6.0, seconds=4.0)
    assert others == [step, replace(step, loss=0.5), replace(step, accuracy=0.9)]
    assert step.percent == 17.5
    assert step.rung == "25 %"


def test_a_training_without_a_file_tells_nobody(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = Training(None, 4, 1)
    training.take(0.5, ends_epoch=True)
    assert training.wants_loss(4)
    assert not [*tmp_path.iterdir()]


def test_what_is_told_of_steps_that_follow_fast_is_little_and_written_together(tmp_path, clock):
    file = ProgressFile(tmp_path, "layers-1")
    training = Training(file, steps=8000, rows_per_step=1, share=0.5)

    def written():
        return [step.step for step in file.read()]

    training.reach(1)
    training.reach(2, loss=0.5)
    assert written() == [0]
    clock.now += progress.SECONDS_BETWEEN_WRITES
    training.reach(3)
    training.reach(4)
    assert written() == [0, 2, 3]
    training.reach(5, loss=0.5)
    training.reach(5, accuracy=0.9)
    training.reach(6)
    assert written() == [0, 2, 3, 5, 5]
    training.reach(4000)
    assert written() == [0, 2, 3, 5, 5, 4000]


def test_a_step_is_told_in_microseconds(tmp_path):
    training = Training(ProgressFile(tmp_path, "layers-1"), 20_000, 32)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(4000):
            training.take(0.5)
        best = min(best, (time.perf_counter() - start) / 4000)
    assert best < 20e-6


@given(
    losses=st.lists(st.floats(0, 1e3), min_size=1, max_size=300),
    steps_per_epoch=st.integers(1, 300),
)
def test_told_losses_are_few_and_make_the_mean_of_each_epoch(losses, steps_per_epoch):
    epochs = math.ceil(len(losses) / steps_per_epoch)

    def run(file):
        training = Training(file, len(losses), 1)
        for number, loss in enumerate(losses, start=1):
            training.take(loss, ends_epoch=number % steps_per_epoch == 0)

    means = {step.step: step.loss for step in told(run) if step.loss is not None}
    assert len(means) <= LOSSES + epochs
    marks = [0, *means]
    for before, mark in itertools.pairwise(marks):
        assert means[mark] == pytest.approx(np.mean(losses[before:mark]), abs=1e-9)
    whole = range(steps_per_epoch, len(losses) + 1, steps_per_epoch)
    assert set(whole) <= means.keys()


def test_a_step_keeps_what_was_told_before():
    early = TrainingStep("a", 3, 8, 1.0, loss=0.5, accuracy=0.9, rows_per_s=10.0, seconds_left=4.0)
    late = TrainingStep("a", 4, 8, 1.0, loss=0.25)
    assert late.after(early) == replace(early, step=4, loss=0.25, seconds_left=None)
    assert TrainingStep("a", 0, 8).after(early) == TrainingStep("a", 0, 8)


def test_all_that_is_known_is_one_line():
    step = TrainingStep("a", 3, 8, 0.125, 0.51234, 0.9, 1234.5, 3725.4)
    assert str(step) == (
        "a: step 3 of 8, rung 12.5 %, loss 0.512, accuracy 0.9, 1,234 rows/s, 1:02:05 left"
    )
    assert str(TrainingStep("a", 3, 8)) == "a: step 3 of 8"


NUMBERS = st.none() | st.floats(allow_nan=False)


@given(
    name=st.text(),
    steps=st.lists(
        st.builds(
            TrainingStep,
            name=st.just("a"),
            step=st.integers(0, 9),
            steps=st.integers(1, 9),
            loss=NUMBERS,
            accuracy=NUMBERS,
        ),
        max_size=5,
    ),
)
def test_a_file_gives_back_what_was_told_exactly_and_any_name_has_one(name, steps):
    steps = [replace(step, name=name) for step in steps]
    assert told(lambda file: file.write(steps), name) == steps


def test_a_training_that_goes_on_reads_only_what_it_told_itself(tmp_path):
    file = ProgressFile(tmp_path, "layers-1")
    for loss in (0.5, 0.25):
        with file.told():
            Training(file, 1, 1).take(loss)
    assert [step.loss for step in file.read()] == [None, 0.25]


def test_how_a_training_ended_is_its_last_line(tmp_path):
    def last(name):
        return json.loads(ProgressFile(tmp_path, name).path.read_text().splitlines()[-1])

    with ProgressFile(tmp_path, "good").told():
        pass
    with pytest.raises(KeyboardInterrupt), ProgressFile(tmp_path, "bad").told():
        raise KeyboardInterrupt
    assert last("good") == {"name": "good", "how": "done"}
    assert last("bad") == {"name": "bad", "how": "failed"}


def test_watchers_are_told_everything_while_they_follow(tmp_path):
    listeners = Listener(), Listener()
    with follow(tmp_path, listeners):
        for name in ("b", "a"):  # too quick for a look between them
            file = ProgressFile(tmp_path, name)
            with file.told():
                Training(file, 1, 1).take(0.5)
    with ProgressFile(tmp_path, "later").told():
        pass
    first, second = listeners
    assert first.events == second.events
    heard = [(event.name, getattr(event, "step", "end")) for event in first.events]
    assert heard == [(name, what) for name in ("b", "a") for what in (0, 0, 1, "end")]
    (thread,) = first.threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()
    assert first.closed == 1


def test_what_a_run_left_that_was_killed_is_not_shown_and_nothing_is_left_behind(tmp_path):
    ProgressFile(tmp_path, "old").write([TrainingStep("old")])
    listener = Listener()
    with follow(tmp_path, [listener]):
        ProgressFile(tmp_path, "new").write([TrainingStep("new")])
    assert [event.name for event in listener.events] == ["new"]
    assert not (tmp_path / FOLDER).exists()


def test_a_line_is_read_when_it_is_whole(tmp_path):
    listener, file = Listener(), ProgressFile(tmp_path, "ä")
    with follow(tmp_path, [listener]):
        file.write([TrainingStep("ä")])
        whole = json.dumps({"name": "ä", "how": "done"}, ensure_ascii=False).encode() + b"\n"
        for part in (whole[:11], whole[11:]):
            with file.path.open("ab") as end:
                end.write(part)
            time.sleep(2.5 * progress.SECONDS_BETWEEN_LOOKS)
    assert listener.events == [TrainingStep("ä"), TrainingEnd("ä", "done")]


class Broken(Listener):
    """A watcher that cannot show anything."""

    def show(self):
        raise OSError("no terminal")


def test_a_watcher_that_fails_ends_the_showing_and_no_training(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("potstill"), "propagate", True)
    listener, broken, file = Listener(), Broken(), ProgressFile(tmp_path, "layers-1")
    with follow(tmp_path, [listener, broken]), file.told():
        Training(file, 1, 1).take(0.5)
        time.sleep(1.5 * progress.SECONDS_BETWEEN_LOOKS)
        assert [step.loss for step in file.read()] == [None, 0.5]
    assert (listener.closed, broken.closed) == (1, 1)
    assert "the progress of trainings is no longer shown: OSError: no terminal" in caplog.text


def test_the_error_of_the_block_comes_out_and_the_follower_ends(tmp_path):
    listener = Listener()
    with pytest.raises(KeyboardInterrupt), follow(tmp_path, [listener]):
        raise KeyboardInterrupt
    assert listener.closed == 1
    assert not any(thread.name == FOLDER for thread in threading.enumerate())


STEPS = 48  # 96 rows in batches of 4, twice
LAYERS = LayersStudent(layers=1, batch_rows=4)


@pytest.fixture
def training_set(tiny_base):
    return make_gold_set(tiny_base, 96)


@pytest.mark.parametrize(
    ("student", "steps"), [(LAYERS, STEPS), (StaticStudent(dimensions=4, epochs=5), 15)]
)
def test_a_student_tells_its_steps_and_its_curve_stays_one_of_epochs(
    training_set, student, steps, tmp_path
):
    file = ProgressFile(tmp_path, student.name)
    with file.told():
        epochs = student.train(replace(training_set, progress=file), tmp_path)
    heard = file.read()
    assert {step.name for step in heard} == {student.name}
    assert {step.steps for step in heard} == {steps}
    assert [step for step, _ in itertools.groupby(heard, lambda s: s.step)] == [*range(steps + 1)]
    assert len(epochs) == student.epochs
    curve = join_losses(epochs, heard)
    assert [point["step"] for point in curve] == sorted({p["step"] for p in curve})
    assert len(epochs) < len(curve) <= LOSSES + len(epochs)
    start = 0
    for epoch in epochs:  # the losses by step are those of the epoch
        inside = [point for point in curve if start < point["step"] <= epoch["step"]]
        ends = [start, *(point["step"] for point in inside)]
        means = [point["train/loss"] for point in inside]
        assert np.average(means, weights=np.diff(ends)) == pytest.approx(epoch["train/loss"])
        start = epoch["step"]
    scores = [point for point in curve if "validation/accuracy" in point]
    wanted = [point for point in epochs if "validation/accuracy" in point]
    assert [{**point, "train/loss": 0.0} for point in wanted] == [
        {key: point[key] for key in wanted[0]} | {"train/loss": 0.0} for point in scores
    ]


def test_a_student_that_goes_on_tells_again_what_it_told(training_set, tmp_path):
    def part(share, folder):
        def run(file):
            given = replace(training_set, share=share, progress=file)
            LAYERS.train(given, tmp_path / folder)

        heard = told(run)
        return [(step.step, step.loss) for step in heard if step.loss is not None], heard

    whole, _ = part(1.0, "whole")
    first, heard = part(0.25, "halted")
    assert {step.rung for step in heard} == {"25 %"}
    assert [step for step, _ in first] == [*range(1, 13)]
    again, heard = part(1.0, "halted")
    assert again[:12] == first
    assert [step for step, _ in again] == [step for step, _ in whole] == [*range(1, STEPS + 1)]
    assert [loss for _, loss in again] == pytest.approx([loss for _, loss in whole])
    accuracies = [step.accuracy for step in heard if step.accuracy is not None]
    assert len(accuracies) == 2
