import gc
import time

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from distill_tasks.latency import (
    ROUNDS,
    WARM_UP_CALLS,
    MeasureConfig,
    describe_machine,
    time_models,
)

TEXTS = [f"text {number}" for number in range(50)]
CONFIG = MeasureConfig(calls=30, batch_rows=8)


@pytest.fixture(autouse=True)
def quick_collection():
    """Keep what other tests left behind out of the collections between rounds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Listener:
    def __init__(self):
        self.heard = []

    def __call__(self, texts):
        self.heard.append(list(texts))


def test_a_sleeping_model_is_timed_right():
    models = {
        "slow": lambda texts: time.sleep(0.004 * len(texts)),
        "fast": lambda texts: time.sleep(0.001 * len(texts)),
    }
    found = time_models(models, TEXTS, CONFIG)
    # Sleep is never shorter than asked, and on a busy machine often longer.
    assert 4 <= found["slow"].p50_ms < 8
    assert 1 <= found["fast"].p50_ms < 3
    assert 125 < found["slow"].rows_per_s <= 250
    assert found["fast"].rows_per_s <= 1000
    assert found["fast"].rows_per_s > found["slow"].rows_per_s


def test_percentiles_tell_rare_slow_calls_from_common_fast_ones():
    number = 0

    def stumble(texts):
        nonlocal number
        number += len(texts) == 1
        time.sleep(0.03 if number % 8 == 0 else 0.001)

    found = time_models({"stumbling": stumble}, TEXTS, MeasureConfig(calls=80, batch_rows=2))
    latency = found["stumbling"]
    assert latency.p50_ms < 15
    assert 30 <= latency.p95_ms <= latency.p99_ms


def test_every_model_gets_the_same_texts():
    models = {"one": Listener(), "other": Listener(), "third": Listener()}
    time_models(models, TEXTS, CONFIG)
    heard = [model.heard for model in models.values()]
    assert heard[0] == heard[1] == heard[2]
    single = [texts for texts in heard[0] if len(texts) == 1]
    batches = [texts for texts in heard[0] if len(texts) == 8]
    assert len(single) == WARM_UP_CALLS + CONFIG.calls
    assert len(single) + len(batches) == len(heard[0])
    assert {text for texts in heard[0] for text in texts} <= set(TEXTS)
    assert len({text for (text,) in single}) > 10


def test_models_take_turns_in_random_order():
    turns = []
    models = {name: lambda _, name=name: turns.append(name) for name in ("a", "b")}
    time_models(models, TEXTS, CONFIG)
    rounds = np.reshape(turns[2 * WARM_UP_CALLS :], (ROUNDS, 2, CONFIG.calls // ROUNDS + 1))
    assert all(set(turn) in ({"a"}, {"b"}) for both in rounds for turn in both)
    assert {"".join(both[:, 0]) for both in rounds} == {"ab", "ba"}


def test_the_seed_decides_the_texts():
    heard = []
    for seed in (1, 1, 2):
        model = Listener()
        time_models({"model": model}, TEXTS, CONFIG, seed)
        heard.append(model.heard)
    assert heard[0] == heard[1] != heard[2]


def test_one_text_is_enough():
    model = Listener()
    time_models({"model": model}, ["only"], CONFIG)
    assert set(np.concatenate(model.heard)) == {"only"}


def test_threads_and_collection_are_set_and_put_back():
    before = torch.get_num_threads()
    other = 1 if before > 1 else 2
    seen = set()

    def look(_):
        seen.add((torch.get_num_threads(), gc.isenabled()))

    config = MeasureConfig(calls=20, batch_rows=1, threads=other)
    found = time_models({"model": look}, TEXTS, config)["model"]
    assert (other, False) in seen
    assert {threads for threads, _ in seen} == {other}
    assert torch.get_num_threads() == before
    assert gc.isenabled()
    assert found.threads == other


def test_a_failing_model_puts_threads_and_collection_back():
    before = torch.get_num_threads()

    def fail(texts):
        if len(texts) > 1:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        time_models({"model": fail}, TEXTS, CONFIG)
    assert torch.get_num_threads() == before
    assert gc.isenabled()


def test_a_latency_says_how_it_was_measured():
    latency = time_models({"model": lambda _: time.sleep(0.001)}, TEXTS, CONFIG)["model"]
    assert (latency.calls, latency.batch_rows, latency.threads) == (30, 8, 1)
    assert latency.device == describe_machine()
    assert "cores" in latency.device
    assert latency.noise >= 0
    assert latency.values["latency/p95_ms"] == latency.to_json()["p95_ms"] == latency.p95_ms


@pytest.mark.parametrize(
    "settings", [{"calls": 19}, {"calls": 100_001}, {"batch_rows": 0}, {"threads": 0}]
)
def test_settings_out_of_bounds_are_refused(settings):
    with pytest.raises(ValidationError):
        MeasureConfig(**settings)
