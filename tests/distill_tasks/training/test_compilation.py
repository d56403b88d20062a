"""Compiled reading: when it is tried, what it is measured by, and what happens when it fails."""

import logging
import shutil
from contextlib import closing

import numpy as np
import pytest
import torch
from samples import make_rows

from distill_tasks.training import compilation
from distill_tasks.training import trainer as training
from distill_tasks.training.classifier import SequenceClassifier
from distill_tasks.training.compilation import PROBED_BATCHES, FasterReader
from distill_tasks.training.device import Device

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
BATCH = torch.zeros((2, 8), dtype=torch.long)


class Counter(torch.nn.Module):
    """Counts how often it read, in its own form or in another."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    def forward(self, input_ids):
        self.reads += 1
        return input_ids


@pytest.fixture
def clock(monkeypatch):
    """Time goes on only where a test says so."""
    now = [0.0]
    monkeypatch.setattr(compilation.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def other_form(monkeypatch):
    """What stands for compiled code: another model."""
    form = Counter()
    monkeypatch.setattr(compilation, "compile_model", lambda _: form)
    return form


def read_all(reader, clock, batches, plain, quick_s, plain_s):
    """Read so many batches, each taking what its form takes."""
    for _ in range(batches):
        before = plain.reads
        reader(input_ids=BATCH)
        clock[0] += plain_s if plain.reads > before else quick_s


def read_long_work(clock, quick_s, caplog):
    plain = Counter()
    tokens = 2 * BATCH.numel() * compilation.LONG_S  # at a second a batch, twice what is long
    with caplog.at_level(logging.INFO, "potstill"), closing(FasterReader(plain, tokens)) as reader:
        read_all(reader, clock, 10 * PROBED_BATCHES, plain, quick_s, plain_s=1.0)
    return plain.reads


def test_faster_code_is_kept(clock, other_form, caplog):
    assert read_long_work(clock, 0.8, caplog) == 2 * PROBED_BATCHES
    assert other_form.reads == 8 * PROBED_BATCHES
    assert "compile: 1.25 times as fast, kept" in caplog.messages


@pytest.mark.parametrize("quick_s", [0.97, 1.0, 3.0])
def test_code_that_is_hardly_faster_is_not_kept(quick_s, clock, other_form, caplog):
    assert read_long_work(clock, quick_s, caplog) == 8 * PROBED_BATCHES
    assert other_form.reads == 2 * PROBED_BATCHES
    assert "not kept" in caplog.text


def test_short_work_is_not_compiled(clock, other_form):
    plain = Counter()
    tokens = BATCH.numel() * (PROBED_BATCHES + 1 + compilation.LONG_S) - 1
    reader = FasterReader(plain, tokens)
    read_all(reader, clock, 3 * PROBED_BATCHES, plain, 0.5, plain_s=1.0)
    assert plain.reads == 3 * PROBED_BATCHES
    assert not other_form.reads


@pytest.mark.parametrize("makes", [True, False])
def test_what_cannot_be_compiled_is_read_as_it_is(makes, clock, monkeypatch, caplog):
    """torch.compile may fail itself, or what it made when that first reads."""

    def fail(**_):
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(torch, "compile", lambda _, dynamic: fail if makes else fail())  # noqa: ARG005
    assert read_long_work(clock, 0.5, caplog) == 10 * PROBED_BATCHES
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    reason = "RuntimeError: no compiler here"
    assert warned == [f"compile: torch.compile failed, continuing without it: {reason}"]


@needs_compiler
@pytest.mark.slow
def test_a_teacher_answers_the_same_compiled(tiny_base, monkeypatch, caplog):
    monkeypatch.setattr(compilation, "LONG_S", 0.0)
    texts = list(make_rows(32 * 5 * PROBED_BATCHES + 3, seed=2)["text"])
    teacher = SequenceClassifier(tiny_base, 32)
    plain = np.concatenate([teacher.logits(texts[start::50]) for start in range(50)])
    with caplog.at_level(logging.INFO, "potstill"):
        compiled = teacher.logits(texts)
    assert "times as fast" in caplog.text
    expected = np.empty_like(compiled)
    expected[np.concatenate([np.arange(start, len(texts), 50) for start in range(50)])] = plain
    np.testing.assert_allclose(compiled, expected, atol=0.02)  # bfloat16, other batches


@needs_compiler
@pytest.mark.slow
def test_training_may_compile(tiny_base, tmp_path, monkeypatch, caplog):
    """On CUDA it does; here the same steps are tried on the CPU."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from distill_tasks.training.model_settings import without_dropout
    from distill_tasks.training.recipe import Recipe
    from distill_tasks.training.token_store import Tokens
    from distill_tasks.training.trainer import train_classifier

    monkeypatch.setattr(compilation, "LONG_S", 0.0)
    frame = make_rows(32 * 5 * PROBED_BATCHES, seed=3)
    names = sorted(frame["label"].unique())
    texts, gold = list(frame["text"]), np.array([names.index(name) for name in frame["label"]])
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokens = Tokens(tokenizer, 32, None)
    config, weights = AutoConfig.from_pretrained(tiny_base), []
    for compiles in (False, True):
        device = Device("cpu", False, False, "eager", "a test", compiles_training=compiles)
        monkeypatch.setattr(training, "choose_device", lambda device=device: device)
        with caplog.at_level(logging.INFO, "potstill"):
            train_classifier(
                lambda: AutoModelForSequenceClassification.from_pretrained(
                    tiny_base, config=without_dropout(config)
                ),
                tokenizer,
                tokens.read_rows(texts, gold),
                tokens.read_rows(texts[:8], gold[:8]),
                Recipe(1, 1e-4, 32, 32, 1),
                tmp_path / str(compiles),
            )
        assert ("times as fast" in caplog.text) is compiles
        trained = AutoModelForSequenceClassification.from_pretrained(tmp_path / str(compiles))
        weights.append(trained.classifier.weight.detach().numpy())
    np.testing.assert_allclose(*weights, atol=1e-4)
