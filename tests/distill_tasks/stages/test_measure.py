from dataclasses import replace

import numpy as np
import pytest
from builders import make_latency, open_run, train_students, without_weights
from samples import CLASSES, make_rows

from distill_tasks.config import parse_config
from distill_tasks.core.errors import PotstillError
from distill_tasks.results.outcomes import Latencies
from distill_tasks.results.run import OpenRun
from distill_tasks.stages.measure import measure_all

NAMES = ["static-8-epochs-1", "bag-of-words-100"]


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    """Two students that need no torch to be measured, with what they came from."""
    folder = tmp_path_factory.mktemp("measured")
    rows = make_rows(150, seed=1)
    rows[:90].to_parquet(folder / "train.parquet")
    rows[90:].to_parquet(folder / "held_out.parquet")
    written = {
        "name": "animals",
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / f"{name}.parquet") for name in ("train", "held_out")},
        "teacher": {"kind": "transformers", "model": str(tiny_base), "max_length": 16},
        "students": [
            {"family": "static", "dimensions": 8, "epochs": 1},
            {"family": "bag_of_words", "max_features": 100},
        ],
        "measure": {"calls": 20, "batch_rows": [4]},
        "registry": {"model": "animals"},
    }
    run = open_run(parse_config(written, "test"))
    return written, run.corpus, train_students(run)


def measure_light(made, folder=None, students=None, corpus=None, **changes):
    """Measure beside a teacher that has no weights here, with changes to the stopwatch."""
    written, rows, every = made
    changed = {"work_dir": str(folder or written["work_dir"])}
    config = parse_config(written | changed | {"measure": written["measure"] | changes}, "test")
    run = OpenRun(config, corpus or rows, without_weights(), None, None)
    return measure_all(run, students or every)


@pytest.fixture(scope="module")
def found(made):
    """What the stopwatch says of both."""
    return measure_light(made)


@pytest.fixture
def measure(made, tmp_path):
    """Measure the bag of words alone into a store of this test's own."""

    def run(students=made[2][1:], **changes):
        return measure_light(made, tmp_path, students, **changes)

    return run


def test_every_student_is_timed_and_a_teacher_without_weights_here_is_not(found):
    assert list(found.by_name) == NAMES
    assert not found.reused
    for latency in found.by_name.values():
        assert 0 < latency.p50_ms <= latency.p95_ms <= latency.p99_ms
        assert latency.rows_per_s.keys() == {"4"}
        assert latency.throughput == latency.rows_per_s["4"] > 0
        assert (latency.calls >= 20, latency.threads) == (True, 1)
        assert "cores" in latency.device
        assert latency.cuda_p50_ms is None


def test_every_student_has_its_footprint(found):
    assert list(found.footprints) == NAMES
    static, words = found.footprints.values()
    assert static.installed_mb > words.installed_mb > 10
    assert all(takes.cold_start_s > 0 for takes in (static, words))
    assert all(10 < takes.resident_mb < 1000 for takes in (static, words))


def test_the_noise_of_the_run_is_the_largest_difference_of_a_model_from_itself(found):
    assert found.band == max(latency.aa_p95 for latency in found.by_name.values()) >= 0
    loud = {"one": make_latency(1, noise=0.02), "two": make_latency(9, noise=0.07)}
    assert Latencies(loud, {}, {}, reused=False).band == 0.07


def test_the_versions_of_what_answered_are_kept(found):
    assert {"numpy", "onnxruntime", "tokenizers", "torch", "transformers"} == set(found.versions)
    assert found.versions["numpy"] == np.__version__


def test_the_same_models_are_timed_once(made, found):
    assert measure_light(made) == replace(found, reused=True)


def test_another_stopwatch_other_rows_or_other_students_are_timed_anew(measure, made):
    _, corpus, students = made
    measure()
    held_out = corpus.splits["held_out"].take(np.arange(10))
    shorter = type(corpus)({**corpus.splits, "held_out": held_out}, CLASSES)
    assert not measure(students=students).reused
    assert not measure(calls=30).reused
    assert not measure(corpus=shorter).reused
    assert measure().reused


def test_every_size_of_batch_has_its_rate(measure):
    (latency,) = measure(batch_rows=[2, 16]).by_name.values()
    assert latency.rows_per_s.keys() == {"2", "16"}
    assert latency.throughput == max(latency.rows_per_s.values())
    assert latency.values["throughput/rows_per_s_of_16"] == latency.rows_per_s["16"]


def test_what_is_not_served_is_not_measured(measure, made):
    *_, words = made[2]
    other_seed = replace(words, name=f"{words.name}-seed-8", digest="another")
    control = replace(words, name=f"{words.name}-on-gold-seed-7", distilled=False)
    found = measure(students=[words, other_seed, control])
    assert list(found.by_name) == list(found.footprints) == [words.name]
    assert measure().reused


def test_a_student_that_cannot_be_opened_stops_the_measurement(measure, made, tmp_path):
    *_, words = made[2]
    with pytest.raises(PotstillError, match="The stopwatch failed with exit code 1"):
        measure(students=[replace(words, folder=tmp_path, digest="nothing there")])
