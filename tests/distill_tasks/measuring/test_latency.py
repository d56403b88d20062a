import gc
import json
import os
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_latency
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from samples import make_rows
from torch.utils.benchmark import Timer

from distill_tasks.core.environment import describe_machine
from distill_tasks.measuring import latency as stopwatch
from distill_tasks.measuring.latency import (
    MOST_REPEATS,
    PARTS,
    ROUNDS,
    SHORTEST_TURN_MS,
    MeasureConfig,
    SpeedUp,
    find_band,
    fixed_threads,
    tie,
    time_models,
)
from distill_tasks.serving.served_model import open_model

TEXTS = [f"text {number}" for number in range(50)]
CONFIG = MeasureConfig(calls=20, batch_rows=(8,))
# Half of the calls are warmed up on, then asked in each of two turns: two texts to a round.
TWO_TEXTS = MeasureConfig(calls=4 * ROUNDS, batch_rows=(8,))
WARM_UP = 2 * ROUNDS


@pytest.fixture(autouse=True, scope="module")
def quick_collection():
    """Keep what other tests left behind out of the collections between rounds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Clock:
    """Time that goes on only where a model takes some, and by a tick where somebody looks."""

    def __init__(self):
        self.now_ns = 0

    def perf_counter_ns(self):
        self.now_ns += 100
        return self.now_ns

    def perf_counter(self):
        return self.perf_counter_ns() / 1e9

    def sleep(self, seconds):
        self.now_ns += round(1e9 * seconds)


@pytest.fixture(autouse=True, scope="module")
def clock():
    """The clock of the stopwatch in these tests: no other process makes it go faster or slower."""
    mine = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch, "time", mine)
        yield mine


class Listener:
    def __init__(self):
        self.heard = []

    def __call__(self, texts):
        self.heard.append(list(texts))

    @property
    def single(self):
        return [texts[0] for texts in self.heard if len(texts) == 1]


def listen(names, config=TWO_TEXTS, seed=0):
    """Return who was asked what, text by text without the warm-up, in order."""
    asked = []

    def hear(name):
        return lambda texts: asked.append((name, texts[0])) if len(texts) == 1 else None

    time_models({name: hear(name) for name in names}, TEXTS, config, seed)
    return asked[len(names) * (config.calls // 2) :]


def test_a_sleeping_model_is_timed_right(clock):
    models = {
        "slow": lambda texts: clock.sleep(0.004 * len(texts)),
        "fast": lambda texts: clock.sleep(0.001 * len(texts)),
    }
    found = time_models(models, TEXTS, CONFIG)
    assert found["slow"].p50_ms == pytest.approx(4, rel=1e-3)
    assert found["fast"].p50_ms == pytest.approx(1, rel=1e-3)
    assert found["slow"].throughput == pytest.approx(250, rel=1e-3)
    assert found["fast"].throughput == pytest.approx(1000, rel=1e-3)


def test_the_clock_of_the_machine_is_read_in_milliseconds(monkeypatch):
    """What holds on any machine, however busy: sleep is not shorter than asked, time adds up."""
    monkeypatch.setattr(stopwatch, "time", time)
    start = time.perf_counter()
    latency = time_models({"model": lambda _: time.sleep(0.004)}, TEXTS, CONFIG)["model"]
    whole_ms = 1e3 * (time.perf_counter() - start)
    assert 4 <= latency.p50_ms <= latency.p95_ms <= latency.p99_ms <= whole_ms
    assert 4 * latency.calls <= latency.mean_ms * latency.calls <= whole_ms


def test_percentiles_and_mean_tell_rare_slow_calls_from_common_fast_ones(clock):
    number = 0

    def stumble(texts):
        nonlocal number
        number += len(texts) == 1
        clock.sleep(0.03 if number % 8 == 0 else 0.004)

    latency = time_models({"stumbling": stumble}, TEXTS, CONFIG)["stumbling"]
    assert latency.p50_ms == pytest.approx(4, rel=1e-3)
    assert latency.p95_ms == latency.p99_ms == pytest.approx(30, rel=1e-3)
    assert latency.mean_ms == pytest.approx((7 * 4 + 30) / 8, rel=0.05)  # a hundred calls, not 96


def test_every_model_gets_the_same_texts():
    models = {"one": Listener(), "other": Listener(), "third": Listener()}
    time_models(models, TEXTS, CONFIG)
    heard = [model.heard for model in models.values()]
    assert heard[0] == heard[1] == heard[2]
    assert {text for texts in heard[0] for text in texts} <= set(TEXTS)
    assert len(set(models["one"].single)) > 5
    batches = [texts for texts in heard[0] if len(texts) > 1]
    assert {len(batch) for batch in batches} == {8}
    assert all(batch == batches[0] for batch in batches)


def test_a_model_has_two_turns_in_every_round_on_the_same_texts():
    asked = listen(["a", "b"])
    rounds = np.reshape(asked, (ROUNDS, 4, MOST_REPEATS, 2, 2))  # 4 turns, each text of 2 repeated
    names, texts = rounds[..., 0], rounds[..., 1]
    assert (names == names[:, :, :1, :1]).all()
    assert all(Counter(turns) == {"a": 2, "b": 2} for turns in names[:, :, 0, 0].tolist())
    assert (texts == texts[:, :1, :1]).all()


def test_turns_come_in_random_order():
    names = np.reshape(listen(["a", "b"]), (ROUNDS, 4, -1, 2))[:, :, 0, 0]
    orders = Counter("".join(turns) for turns in names)
    assert len(orders) >= 4
    assert {order[0] for order in orders} == {"a", "b"}


def test_each_text_is_warmed_up_on_before_any_is_timed():
    model = Listener()
    time_models({"model": model}, TEXTS, TWO_TEXTS)
    timed = np.reshape(model.single[WARM_UP:], (ROUNDS, 2, MOST_REPEATS, 2))
    assert timed[:, 0, 0].ravel().tolist() == model.single[:WARM_UP]


def test_quick_models_are_asked_more_often_than_slow_ones(clock):
    counts = Counter()

    def answer(name, seconds):
        def count(texts):
            counts[name] += len(texts) == 1
            clock.sleep(seconds)

        return count

    # One text to a turn, which is to take SHORTEST_TURN_MS.
    config = MeasureConfig(calls=20, batch_rows=(2,))
    seconds = {"instant": 0, "middling": SHORTEST_TURN_MS / 4e3, "slow": SHORTEST_TURN_MS / 1e3}
    found = time_models({n: answer(n, s) for n, s in seconds.items()}, TEXTS, config)
    assert found["slow"].calls == config.calls
    assert found["middling"].calls == 4 * config.calls
    assert found["instant"].calls == MOST_REPEATS * config.calls
    for name, latency in found.items():
        assert counts[name] == latency.calls + config.calls // 2


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


def test_long_texts_are_told_from_short_ones(clock):
    texts = ["x" * length for length in range(1, 25)]
    answers = {"growing": lambda texts: clock.sleep(0.0001 * sum(map(len, texts)))}
    latency = time_models(answers, texts, MeasureConfig(calls=400, batch_rows=(2,)))["growing"]
    assert tuple(latency.by_length) == PARTS == ("short", "middle", "long")
    short, middle, long = latency.by_length.values()
    # Texts of 1 to 24 tenths of a millisecond: the thirds have their middle at about 4, 12 and 20.
    assert (short, middle, long) == pytest.approx((0.4, 1.2, 2.0), abs=0.35)  # as texts were drawn
    assert short < latency.p50_ms < long


def test_texts_of_one_length_are_all_of_one_part():
    latency = time_models({"model": lambda _: None}, ["aaa", "bbb"], CONFIG)["model"]
    assert latency.by_length == {"short": latency.p50_ms}


def test_rows_per_second_are_told_by_batch(clock):
    config = MeasureConfig(calls=20, batch_rows=(4, 16))
    answers = {"model": lambda texts: clock.sleep(0.003 + 0.0005 * len(texts))}
    latency = time_models(answers, TEXTS, config)["model"]
    assert list(latency.rows_per_s) == ["4", "16"]
    assert latency.rows_per_s["4"] == pytest.approx(4 / 0.005, rel=1e-3)
    assert latency.rows_per_s["16"] == pytest.approx(16 / 0.011, rel=1e-3)
    assert latency.throughput == max(latency.rows_per_s.values())
    named = {key: value for key, value in latency.values.items() if key.startswith("throughput")}
    assert named == {
        "throughput/rows_per_s": latency.throughput,
        "throughput/rows_per_s_of_4": latency.rows_per_s["4"],
        "throughput/rows_per_s_of_16": latency.rows_per_s["16"],
    }


def test_intervals_hold_the_value_and_grow_with_the_differences_between_rounds(clock):
    number = 0

    def drift(texts):
        nonlocal number
        number += len(texts) == 1
        clock.sleep(0.005 + 0.0001 * number)

    models = {"drifting": drift, "steady": lambda _: clock.sleep(0.008)}
    found = time_models(models, TEXTS, CONFIG)
    widths = {}
    for name, latency in found.items():
        for key, (low, high) in latency.intervals.items():
            assert low <= getattr(latency, key) <= high
        low, high = latency.intervals["p50_ms"]
        widths[name] = (high - low) / latency.p50_ms
    assert list(found["steady"].intervals) == ["p50_ms", "p95_ms", "p99_ms"]
    assert widths["drifting"] > 0.1
    assert widths["steady"] < 1e-6


def test_a_model_of_uneven_times_differs_from_itself(clock):
    uneven = np.random.default_rng(1)
    models = {
        "uneven": lambda _: clock.sleep(uneven.uniform(0.002, 0.05)),
        "steady": lambda _: clock.sleep(0.02),
    }
    found = time_models(models, TEXTS, MeasureConfig(calls=20, batch_rows=(2,)))
    assert found["uneven"].calls == 20
    assert found["uneven"].aa_p50 > 0.02
    assert found["steady"].aa_p50 < 1e-6


def test_the_band_is_the_largest_difference_of_a_model_from_itself():
    latencies = [replace(make_latency(1.0), aa_p50=9.0, aa_p95=p95) for p95 in (0.02, 0.3, 0.1)]
    assert find_band(latencies) == 0.3
    assert find_band(latencies[:1]) == 0.02


times = st.lists(st.sampled_from([1.0, 1.05, 1.1, 2.0, 8.0]) | st.floats(1e-3, 1e4), min_size=1)
bands = st.sampled_from([0.0, 0.05, 0.1]) | st.floats(0, 3)


@given(times, bands)
def test_a_tied_latency_is_that_of_the_fastest_of_its_group(taken, band):
    values = np.array(taken)
    tied = tie(values, band)
    assert (tied <= values).all()
    assert set(tied) <= set(values)
    assert (values <= tied * (1 + band)).all()
    # Groups do not touch: the fastest of each is outside the band of the one before.
    leads = np.unique(tied)
    assert (leads[1:] > leads[:-1] * (1 + band)).all()
    assert (tied[np.isin(values, leads)] == values[np.isin(values, leads)]).all()


@given(times, bands)
def test_ties_keep_the_order_and_make_no_further_ties(taken, band):
    values = np.array(taken)
    tied = tie(values, band)
    order = np.argsort(values, kind="stable")
    assert (np.diff(tied[order]) >= 0).all()
    np.testing.assert_array_equal(tie(tied, band), tied)


@given(times)
def test_without_noise_nothing_is_tied(taken):
    values = np.array(taken)
    np.testing.assert_array_equal(tie(values, 0.0), values)


@given(times, bands, st.randoms())
def test_ties_do_not_depend_on_who_comes_first(taken, band, random):
    order = list(range(len(taken)))
    random.shuffle(order)
    values = np.array(taken)
    np.testing.assert_array_equal(tie(values[order], band), tie(values, band)[order])


@given(times, bands, st.integers(-8, 8))
def test_ties_are_of_shares_whatever_the_unit(taken, band, power):
    values, unit = np.array(taken), 2.0**power
    np.testing.assert_array_equal(tie(values * unit, band), tie(values, band) * unit)


@pytest.mark.parametrize(
    ("values", "band", "expected"),
    [
        ([10.0, 10.5, 12.0], 0.1, [10.0, 10.0, 12.0]),
        ([12.0, 10.0, 11.0], 0.1, [12.0, 10.0, 10.0]),
        # Each is near the next, but the third is too far from the first: no chain.
        ([10.0, 10.9, 11.8, 12.7], 0.1, [10.0, 10.0, 11.8, 11.8]),
        ([1.0, 2.0, 4.0], 1.0, [1.0, 1.0, 4.0]),
        ([3.0, 3.0], 0.0, [3.0, 3.0]),
        ([], 0.1, []),
    ],
)
def test_known_ties(values, band, expected):
    given_values = np.array(values)
    assert tie(given_values, band).tolist() == expected
    assert given_values.tolist() == values  # what is given is left alone


def test_threads_and_collection_are_set_and_put_back():
    before = torch.get_num_threads()
    other = 1 if before > 1 else 2
    seen = set()

    def look(_):
        seen.add((torch.get_num_threads(), gc.isenabled()))

    config = MeasureConfig(calls=20, batch_rows=(1,), threads=other)
    found = time_models({"model": look}, TEXTS, config)["model"]
    assert seen == {(other, False)}
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


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("threads", "parallel"), [(1, "false"), (3, "true")])
def test_threads_are_bound_inside_alone(threads, parallel, fails, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    before, environment = torch.get_num_threads(), dict(os.environ)
    try:
        with fixed_threads(threads):
            seen = os.environ["OMP_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"]
            seen += (torch.get_num_threads(),)
            if fails:
                raise KeyError("inside")
    except KeyError:
        assert fails
    assert seen == (str(threads), parallel, threads)
    assert torch.get_num_threads() == before
    assert dict(os.environ) == environment


def test_a_latency_says_how_it_was_measured(clock):
    latency = time_models({"model": lambda _: clock.sleep(0.001)}, TEXTS, CONFIG)["model"]
    assert latency.threads == 1
    assert latency.device == describe_machine()
    assert "cores" in latency.device
    assert latency.cuda_p50_ms is None
    assert latency.values["latency/p95_ms"] == latency.to_json()["p95_ms"] == latency.p95_ms
    assert latency.values["latency/p50_ms_short_texts"] == latency.by_length["short"]
    assert "latency/cuda_p50_ms" not in latency.values
    assert replace(latency, cuda_p50_ms=2.5).values["latency/cuda_p50_ms"] == 2.5
    assert json.loads(json.dumps(latency.to_json()))["aa_p95"] == latency.aa_p95


@pytest.mark.parametrize(
    "settings",
    [
        {"calls": 19},
        {"calls": 100_001},
        {"batch_rows": ()},
        {"batch_rows": (8, 0)},
        {"threads": 0},
        {"device": "tpu"},
    ],
)
def test_settings_out_of_bounds_are_refused(settings):
    with pytest.raises(ValidationError):
        MeasureConfig(**settings)


def test_p50_is_what_the_timer_of_torch_finds(clock):
    """Of models that take as long as their texts are, by the same clock."""
    texts = ["x" * length for length in np.random.default_rng(0).integers(1, 400, 40)]
    models = {
        "growing": lambda asked: clock.sleep(1e-5 * sum(map(len, asked))),
        "squared": lambda asked: clock.sleep(1e-7 * sum(map(len, asked)) ** 2),
    }
    listener = Listener()
    time_models({"listener": listener}, texts, CONFIG)
    sample = listener.single[: CONFIG.calls // 2]  # what is drawn with this seed
    for name, found in time_models(models, texts, CONFIG).items():
        given = [{"answer": models[name], "text": text} for text in sample]
        timers = [Timer("answer([text])", timer=clock.perf_counter, globals=one) for one in given]
        theirs_ms = 1e3 * np.median([timer.timeit(1).mean for timer in timers])
        assert found.p50_ms == pytest.approx(theirs_ms, rel=1e-3)


def test_real_answers_take_no_less_than_they_do_inside(light_folders, monkeypatch):
    """However busy the machine is: a call holds what is timed in it, the run holds all calls."""
    monkeypatch.setattr(stopwatch, "time", time)
    inside_ms = {name: [] for name in light_folders}

    def watch(name, answer):
        def answer_and_look(texts):
            start = time.perf_counter_ns()
            answer(texts)
            inside_ms[name] += [(time.perf_counter_ns() - start) / 1e6] if len(texts) == 1 else []

        return answer_and_look

    models = {n: watch(n, open_model(folder).answer) for n, folder in light_folders.items()}
    start = time.perf_counter()
    found = time_models(models, make_rows(50, seed=9)["text"].tolist(), CONFIG)
    whole_ms = 1e3 * (time.perf_counter() - start)
    assert sum(one.mean_ms * one.calls for one in found.values()) <= whole_ms
    for name, one in found.items():
        timed = inside_ms[name][-one.calls :]  # without the warm-up
        assert one.calls == len(timed)
        assert one.mean_ms >= np.mean(timed)
        for quantile, value in ((0.5, one.p50_ms), (0.95, one.p95_ms)):
            assert value >= np.quantile(timed, quantile)


def test_a_speed_up_is_that_of_p50_and_of_p95_each_labelled():
    quick, slow = make_latency(2.0), replace(make_latency(10.0), p50_ms=8.0)
    found = quick.speed_up_over(slow)
    assert found == SpeedUp(p50=8.0, p95=5.0)
    assert str(found) == "8× at p50, 5× at p95"
