"""Processes that train one model together: here two of them on the CPU, for two GPUs elsewhere."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from samples import CLASSES, make_rows

from distill_tasks.core.errors import PotstillError
from distill_tasks.training import interruption
from distill_tasks.training import trainer as training
from distill_tasks.training.device import Device, present_ranks
from distill_tasks.training.multi_gpu import count_ranks, stop_anywhere, work_together
from distill_tasks.training.recipe import Recipe
from distill_tasks.training.token_store import Tokens
from distill_tasks.training.trainer import train_classifier

RECIPE = Recipe(epochs=2, learning_rate=0.003, batch_rows=8, max_length=16, seed=3)
STEPS = 10


@pytest.mark.parametrize(
    ("gpus", "batch_rows", "ranks"),
    [(0, 32, 1), (1, 32, 1), (2, 32, 2), (3, 32, 2), (8, 6, 6), (4, 7, 1)],
)
def test_a_batch_is_shared_evenly(gpus, batch_rows, ranks):
    assert count_ranks(gpus, batch_rows) == ranks


def test_alone_nothing_is_started_or_asked():
    before = dict(os.environ)

    def work(barrier):
        barrier()
        assert os.environ == before
        told = [stop_anywhere(one, torch.device("cpu")) for one in (True, False)]
        return present_ranks(), told

    assert work_together(1, work) == (1, [True, False])


@pytest.fixture
def train(tiny_base, tmp_path, monkeypatch):
    """Return what trains one model on so many ranks, and returns its weights."""
    rows = make_rows(60, seed=2)
    texts = list(rows["text"])
    gold = np.array([CLASSES.index(name) for name in rows["label"]])

    def make():
        if os.environ.get("RANK") == os.environ.get("FAILS", "none"):
            raise ValueError("this one has a fault")
        transformers.set_seed(0)
        return transformers.BertForSequenceClassification.from_pretrained(
            tiny_base, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, dtype="float32"
        )

    def run(ranks, name, recipe=RECIPE):
        device = Device("cpu", False, False, "eager", "a test", gpus=ranks)
        monkeypatch.setattr(training, "choose_device", lambda: device)
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
        tokens = Tokens(tokenizer, recipe.max_length, None)
        curve = train_classifier(
            make,
            tokenizer,
            tokens.read_rows(texts[:40], gold[:40]),
            tokens.read_rows(texts[40:], gold[40:]),
            recipe,
            tmp_path / name,
        )
        assert curve[-1]["step"] <= STEPS
        model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        return {key: value.numpy() for key, value in model.state_dict().items()}, curve

    return run


def assert_close(ones, others):
    for name, value in ones.items():
        np.testing.assert_allclose(value, others[name], atol=2e-4, err_msg=name)


def test_two_processes_take_the_steps_of_one(train):
    before = dict(os.environ)
    alone, curve = train(1, "alone")
    together, curve_together = train(2, "together")
    assert_close(together, alone)
    assert [point["step"] for point in curve_together] == [5, 10]
    for point, other in zip(curve, curve_together, strict=True):
        assert other["validation/accuracy"] == point["validation/accuracy"]
        # accelerate fills the last batch up with rows that it has had
        assert other["validation/loss"] == pytest.approx(point["validation/loss"], rel=0.01)
    assert os.environ == before
    again, _ = train(1, "again")
    assert all((again[name] == alone[name]).all() for name in alone)


@pytest.mark.slow
def test_halted_on_the_way_they_go_on_together(train):
    whole, _ = train(2, "whole")
    train(2, "parts", replace(RECIPE, share=0.3))
    parts, curve = train(2, "parts")
    assert curve[-1]["step"] == STEPS
    assert all((parts[name] == whole[name]).all() for name in whole)


@pytest.mark.slow
def test_a_signal_to_one_stops_all(train, monkeypatch):
    whole, _ = train(2, "whole")
    told = interruption.stop_anywhere
    calls = []

    def tell(received, device):
        """Be told by SIGTERM on the way, in this process alone."""
        calls.append(received)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return told(received, device)

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    monkeypatch.setattr(interruption, "stop_anywhere", tell)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(2, "parts")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(calls) == 4
    parts, _ = train(2, "parts")
    assert all((parts[name] == whole[name]).all() for name in whole)


@pytest.mark.slow
def test_where_another_fails_the_training_fails_and_says_why(train, monkeypatch):
    monkeypatch.setenv("FAILS", "1")
    before = dict(os.environ)
    with pytest.raises(PotstillError, match="process of the training failed: ValueError: this one"):
        train(2, "failing")
    assert os.environ == before
    monkeypatch.delenv("FAILS")
    train(1, "alone")
