import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file
from samples import CLASSES, make_rows

from distill_tasks.training.interruption import SIGNALS, StopBetweenSteps
from distill_tasks.training.recipe import Recipe
from distill_tasks.training.token_store import Tokens
from distill_tasks.training.trainer import train_classifier

STEPS_PER_EPOCH = 5
RECIPE = Recipe(epochs=3, learning_rate=0.003, batch_rows=8, max_length=16, seed=3)
PATIENT = replace(RECIPE, epochs=12, learning_rate=0.02, patience_epochs=2)


class EndedError(Exception):
    """What a listener of signals raises."""


def end(number, _):
    raise EndedError(number)


def send(number):
    """Send a signal from another thread, as from outside, and let it arrive."""
    sender = threading.Thread(target=os.kill, args=(os.getpid(), number))
    sender.start()
    sender.join()


@pytest.fixture(autouse=True)
def listeners():
    """Both signals raise; afterwards whoever listened before listens again."""
    before = {number: signal.signal(number, end) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def make_train(base):
    """Return what trains one fresh model; ``shift`` teaches validation other classes."""
    rows = make_rows(56, seed=2)
    texts = list(rows["text"])
    gold = np.array([CLASSES.index(name) for name in rows["label"]])

    def make():
        transformers.set_seed(0)
        return transformers.BertForSequenceClassification.from_pretrained(
            base, num_hidden_layers=1, attn_implementation="eager", dtype="float32"
        )

    def run(folder, recipe=RECIPE, shift=0):
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        tokens = Tokens(tokenizer, recipe.max_length, None)
        return train_classifier(
            make,
            tokenizer,
            tokens.read_rows(texts[:37], gold[:37]),
            tokens.read_rows(texts[37:], (gold[37:] + shift) % 3),
            recipe,
            folder,
        )

    return run


@pytest.fixture(scope="module")
def train(tiny_base):
    return make_train(tiny_base)


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """The bytes and the curve of a training that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return train(folder), read(folder)


@pytest.fixture(scope="module")
def patient(train, tmp_path_factory):
    """The bytes and the curve of a training that ended for patience and was never stopped."""
    folder = tmp_path_factory.mktemp("patient")
    curve = train(folder, PATIENT, shift=1)
    losses = [point["validation/loss"] for point in curve]
    assert len(losses) == losses.index(min(losses)) + 3 < 12
    return curve, read(folder)


@pytest.fixture
def during(monkeypatch):
    """Do something inside a given step of the next training."""

    def set_up(step, act):
        count = iter(range(1, 1000))
        plain = transformers.Trainer.training_step

        def step_with(*args, **kwargs):
            if next(count) == step:
                act()
            return plain(*args, **kwargs)

        monkeypatch.setattr(transformers.Trainer, "training_step", step_with)
        return lambda: monkeypatch.setattr(transformers.Trainer, "training_step", plain)

    return set_up


def read(folder):
    return (folder / "model.safetensors").read_bytes()


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def assert_same(found, expected):
    """Curves are the same; of a stopped epoch the mean loss is put together from its parts."""
    assert [set(point) for point in found] == [set(point) for point in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


# A share of the steps


@pytest.mark.parametrize("stops", [[2], [5], [8], [2, 7], [5, 10], [4, 4], [6, 8, 9, 14]], ids=str)
def test_stopped_and_gone_on_it_ends_as_if_never_stopped(train, whole, tmp_path, stops):
    for stop in stops:
        partly = train(tmp_path, replace(RECIPE, share=stop / 15))
        assert partly[-1]["step"] >= stop
    assert_same(train(tmp_path), whole[0])
    assert read(tmp_path) == whole[1]
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("share", "step"), [(1 / 8, 2), (1 / 3, 5), (0.5, 8), (0.001, 1)])
def test_it_stops_at_its_share_with_a_checkpoint_and_a_model(train, tmp_path, share, step):
    curve = train(tmp_path, replace(RECIPE, share=share))
    assert checkpoints(tmp_path) == [f"checkpoint-{step}"]
    assert curve[-1]["step"] == step
    assert ("validation/loss" in curve[-1]) is (step == STEPS_PER_EPOCH)
    assert [point["epoch"] for point in curve[:-1]] == list(range(1, len(curve)))
    kept = load_file(tmp_path / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")
    saved = load_file(tmp_path / "model.safetensors")
    assert all((saved[name] == kept[name]).all() for name in kept)


@pytest.mark.parametrize("stops", [[2], [8], [5, 13], [12]], ids=str)
def test_patience_counts_on_where_it_was_stopped(train, patient, tmp_path, stops):
    for stop in stops:
        train(tmp_path, replace(PATIENT, share=stop / 60), shift=1)
        assert f"checkpoint-{stop}" in checkpoints(tmp_path)
    assert_same(train(tmp_path, PATIENT, shift=1), patient[0])
    assert read(tmp_path) == patient[1]


@pytest.mark.parametrize("later", [0, 1, 20])
def test_patience_that_ends_by_its_share_ends_the_training_there(train, patient, tmp_path, later):
    share = (patient[0][-1]["step"] + later) / 60
    for part in (share, 1):
        curve = train(tmp_path, replace(PATIENT, share=part), shift=1)
        assert_same(curve, patient[0])
        assert read(tmp_path) == patient[1]


# Signals


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGTERM, 1), (signal.SIGINT, 5), (signal.SIGINT, 8), (signal.SIGTERM, 15)],
)
def test_a_signal_ends_the_step_keeps_a_checkpoint_and_reaches_its_listener(
    train, whole, during, tmp_path, number, step
):
    restore = during(step, lambda: send(number))
    with pytest.raises(EndedError) as caught:
        train(tmp_path)
    assert caught.value.args == (number,)
    assert checkpoints(tmp_path) == [f"checkpoint-{step}"]
    assert not (tmp_path / "model.safetensors").exists()
    assert signal.getsignal(number) is end
    restore()
    assert_same(train(tmp_path), whole[0])
    assert read(tmp_path) == whole[1]


def test_signals_again_and_again_change_nothing(train, whole, during, tmp_path):
    for step in (2, 1, 4, 3):  # counted anew in each call: 2, 3, 7 and 10 in all
        restore = during(step, lambda: send(signal.SIGTERM))
        with pytest.raises(EndedError):
            train(tmp_path)
        restore()
    assert checkpoints(tmp_path) == ["checkpoint-10"]
    assert_same(train(tmp_path), whole[0])
    assert read(tmp_path) == whole[1]


def test_a_signal_in_the_step_after_which_patience_ends_changes_nothing(
    train, patient, during, tmp_path
):
    restore = during(patient[0][-1]["step"], lambda: send(signal.SIGTERM))
    with pytest.raises(EndedError):
        train(tmp_path, PATIENT, shift=1)
    restore()
    assert_same(train(tmp_path, PATIENT, shift=1), patient[0])
    assert read(tmp_path) == patient[1]


@pytest.mark.parametrize("step", [4, 13])
def test_a_signal_keeps_the_best_epoch_and_the_last_step_of_a_patient_training(
    train, patient, during, tmp_path, step
):
    restore = during(step, lambda: send(signal.SIGTERM))
    with pytest.raises(EndedError):
        train(tmp_path, PATIENT, shift=1)
    restore()
    assert f"checkpoint-{step}" in checkpoints(tmp_path)
    assert_same(train(tmp_path, PATIENT, shift=1), patient[0])
    assert read(tmp_path) == patient[1]


def test_a_signal_while_validating_is_heard_after_the_next_step(
    train, whole, monkeypatch, tmp_path
):
    plain = transformers.Trainer.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(
            transformers.Trainer,
            "evaluate",
            lambda *args, **kwargs: (send(signal.SIGTERM), plain(*args, **kwargs))[1],
        )
        with pytest.raises(EndedError):
            train(tmp_path)
    assert checkpoints(tmp_path) == ["checkpoint-6"]
    assert_same(train(tmp_path), whole[0])
    assert read(tmp_path) == whole[1]


@pytest.mark.parametrize("pair", [(signal.SIGTERM,) * 2, SIGNALS, SIGNALS[::-1]], ids=str)
def test_the_second_signal_interrupts_inside_the_step(train, whole, during, tmp_path, pair):
    reached = []

    def send_both():
        send(pair[0])
        reached.append("between")
        send(pair[1])
        reached.append("after")

    restore = during(8, send_both)
    with pytest.raises(EndedError) as caught:
        train(tmp_path)
    assert caught.value.args == (pair[0],)
    assert reached == ["between"]
    assert checkpoints(tmp_path) == ["checkpoint-5"]
    restore()
    assert_same(train(tmp_path), whole[0])
    assert read(tmp_path) == whole[1]


def test_a_signal_is_not_lost_where_the_step_fails(train, during, tmp_path):
    def fail():
        send(signal.SIGTERM)
        raise RuntimeError("broken")

    during(3, fail)
    with pytest.raises(EndedError) as caught:
        train(tmp_path)
    assert str(caught.value.__context__) == "broken"
    assert signal.getsignal(signal.SIGTERM) is end


def test_a_training_whose_listener_goes_on_is_not_taken_for_done(train, during, tmp_path):
    heard = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    during(3, lambda: send(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert heard == [signal.SIGTERM]
    assert not (tmp_path / "model.safetensors").exists()


def test_a_signal_that_is_ignored_stays_ignored(train, whole, during, tmp_path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    during(3, lambda: send(signal.SIGINT))
    assert_same(train(tmp_path), whole[0])
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_in_another_thread_nothing_listens(train, whole, during, tmp_path):
    seen = []
    during(3, lambda: seen.extend(signal.getsignal(number) for number in SIGNALS))
    thread = threading.Thread(target=train, args=(tmp_path,))
    thread.start()
    thread.join()
    assert seen == [end, end]
    assert read(tmp_path) == whole[1]


def test_while_it_listens_both_signals_are_held_and_afterwards_no_more():
    stop = StopBetweenSteps(1.0)
    with stop.listening():
        assert end not in [signal.getsignal(number) for number in SIGNALS]
    assert [signal.getsignal(number) for number in SIGNALS] == [end, end]
    assert stop.received is None


def test_a_process_without_listeners_dies_of_the_signal_after_its_checkpoint(
    train, whole, tiny_base, tmp_path
):
    code = f"""
import signal, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import transformers
from test_interruption import make_train
plain = transformers.Trainer.training_step
def slowly(*args, **kwargs):
    print("step", flush=True)
    sys.stdin.readline()
    return plain(*args, **kwargs)
transformers.Trainer.training_step = slowly
signal.signal(signal.SIGTERM, signal.SIG_DFL)
make_train({str(tiny_base)!r})(__import__("pathlib").Path({str(tmp_path)!r}))
"""
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **ends) as child:
        for step in range(1, 8):
            assert child.stdout.readline() == "step\n"
            if step == 7:
                child.send_signal(signal.SIGTERM)
            child.stdin.write("\n")
            child.stdin.flush()
        assert child.wait(60) == -signal.SIGTERM
    assert checkpoints(tmp_path) == ["checkpoint-7"]
    assert_same(train(tmp_path), whole[0])
    assert read(tmp_path) == whole[1]
