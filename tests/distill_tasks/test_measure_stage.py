import gc

import numpy as np
import pytest
from samples import CLASSES, make_rows

from distill_tasks.config import parse_config
from distill_tasks.label import TeacherReference, label_rows, make_teacher
from distill_tasks.measure import measure_all
from distill_tasks.rows import read_corpus
from distill_tasks.students.lesson import Blend
from distill_tasks.train import first_trials, train_one

NAMES = ["layers-1-epochs-1", "static-8-epochs-1", "bag-of-words-100"]


@pytest.fixture(scope="module", autouse=True)
def _quick_collection():
    """Keep the stopwatch's many garbage collections from walking the whole test session."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    """A ready teacher and one student of each family, with what they came from."""
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
            {"family": "layers", "layers": 1, "epochs": 1},
            {"family": "static", "dimensions": 8, "epochs": 1},
            {"family": "bag_of_words", "max_features": 100},
        ],
        "measure": {"calls": 20, "batch_rows": 4},
        "registry": {"model": "animals"},
    }
    config = parse_config(written, "test")
    corpus = read_corpus(config.data, config.seed)
    teacher = make_teacher(config, corpus)
    soft = label_rows(config, corpus, teacher).open().read(corpus.lesson.texts)
    blend = Blend(2.0, 0.9)
    students = [train_one(config, t, corpus, soft, teacher, blend) for t in first_trials(config)]
    return written, corpus, teacher, students


@pytest.fixture
def measure(made, tmp_path):
    """Measure into a store of this test's own, with changes to the stopwatch."""
    written, corpus, teacher, students = made

    def run(teacher=teacher, students=students, corpus=corpus, **changes):
        changed = {"work_dir": str(tmp_path), "measure": written["measure"] | changes}
        config = parse_config(written | changed, "test")
        return measure_all(config, corpus, teacher, students)

    return run


def test_every_student_and_the_teacher_are_timed(measure):
    latencies = measure()
    assert set(latencies.by_name) == {*NAMES, "teacher"}
    assert not latencies.reused
    for latency in latencies.by_name.values():
        assert 0 < latency.p50_ms <= latency.p95_ms <= latency.p99_ms < 10_000
        assert latency.rows_per_s > 0
        assert (latency.calls, latency.batch_rows, latency.threads) == (20, 4, 1)
        assert "cores" in latency.device
    ours = latencies.by_name
    assert ours["bag-of-words-100"].p50_ms < ours["layers-1-epochs-1"].p50_ms
    assert ours["layers-1-epochs-1"].p50_ms < ours["teacher"].p50_ms


def test_the_same_models_are_timed_once(measure):
    first, second = measure(), measure()
    assert second.reused
    assert second.by_name == first.by_name


def test_another_stopwatch_other_rows_or_other_students_are_timed_anew(measure, made):
    _, corpus, _, students = made
    measure(students=students[2:])
    held_out = corpus.splits["held_out"].take(np.arange(10))
    shorter = type(corpus)({**corpus.splits, "held_out": held_out}, CLASSES)
    assert not measure(students=students[1:]).reused
    assert not measure(students=students[2:], calls=30).reused
    assert not measure(students=students[2:], corpus=shorter).reused
    assert measure(students=students[2:]).reused


def test_a_teacher_without_weights_here_is_not_timed(measure, made):
    saved = TeacherReference("saved", CLASSES, None, 0.0, [], reused=True)
    assert set(measure(teacher=saved, students=made[3][2:]).by_name) == {NAMES[2]}
