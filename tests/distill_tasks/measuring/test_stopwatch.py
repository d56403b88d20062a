import json
import os
import time

import pytest
import torch
from samples import CLASSES, make_rows

from distill_tasks.core.environment import describe_machine
from distill_tasks.core.errors import PotstillError
from distill_tasks.measuring.latency import PARTS, Latency, MeasureConfig
from distill_tasks.measuring.stopwatch import Served, time_served

TEXTS = [f"text {number}" for number in range(50)]
CONFIG = MeasureConfig(calls=20, batch_rows=(8,))


def test_served_folders_are_timed_in_the_order_given(light_folders):
    texts = make_rows(30, seed=9)["text"].tolist()
    config = MeasureConfig(calls=20, batch_rows=(4, 2))
    models = {name: Served(str(light_folders[name])) for name in ("static", "bag_of_words")}
    start = time.perf_counter()
    found = time_served(models, texts, config)
    whole_ms = 1e3 * (time.perf_counter() - start)
    assert list(found) == ["static", "bag_of_words"]
    for latency in found.values():
        assert isinstance(latency, Latency)
        assert 0 < latency.p50_ms <= latency.p95_ms <= latency.p99_ms < whole_ms
        assert list(latency.rows_per_s) == ["4", "2"]
        assert list(latency.by_length) == [part for part in PARTS if part in latency.by_length]
        assert latency.intervals["p50_ms"][0] <= latency.p50_ms <= latency.intervals["p50_ms"][1]
        assert latency.calls >= config.calls
        assert latency.calls % config.calls == 0
        assert (latency.threads, latency.cuda_p50_ms) == (1, None)
        assert latency.device == describe_machine()


SCRIBE = """
import json, os, pathlib, sys

def open_model(folder):
    return Scribe(pathlib.Path(folder))

class Scribe:
    def __init__(self, folder):
        self.file = folder / "heard.json"
        self.opened_with = [os.environ[name] for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")]
        self.heard = []

    def answer(self, texts):
        print("answers may print")
        self.heard += texts
        about = os.getpid(), self.opened_with, "torch" in sys.modules, sorted(set(self.heard))
        self.file.write_text(json.dumps(about))
"""


def test_models_answer_by_their_own_code_in_a_python_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("GOMP_SPINCOUNT")  # as of a program that does not set its process up
    (tmp_path / "scribe.py").write_text(SCRIBE)
    texts = ["", "fin 😀\n", "e\u0301\x00\u2028 nil"]
    config = MeasureConfig(calls=20, batch_rows=(9,), threads=2)
    served = Served(str(tmp_path), code=str(tmp_path / "scribe.py"))
    (latency,) = time_served({"scribe": served}, texts, config).values()
    process, opened_with, torch_there, heard = json.loads((tmp_path / "heard.json").read_text())
    assert process != os.getpid()
    assert opened_with == ["2", "10000"]
    assert not torch_there
    assert heard == sorted(texts)
    assert latency.threads == 2


def test_a_folder_that_cannot_be_opened_stops_the_stopwatch(light_folders, tmp_path, capfd):
    models = {"good": Served(str(light_folders["static"])), "bad": Served(str(tmp_path))}
    with pytest.raises(PotstillError, match=r"stopwatch failed with exit code 1; see above"):
        time_served(models, TEXTS, CONFIG)
    assert str(tmp_path / "model.json") in capfd.readouterr().err


def test_a_model_moves_where_it_can(light_folders, tiny_base):
    about = {"runtime": "transformers", "classes": list(CLASSES), "max_length": 16}
    teacher = Served(str(tiny_base), about=about)
    assert teacher.open().device == "cpu"
    moved = teacher.open("meta")
    assert moved.device == "meta"
    assert {weight.device.type for weight in moved.model.parameters()} == {"meta"}
    (stays,) = Served(str(light_folders["bag_of_words"])).open("cuda").answer(["the puppy"])
    assert stays.label == "dogs"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_answers_on_a_cuda_device_is_timed_by_its_events_too(light_folders, tiny_base):
    about = {"runtime": "transformers", "classes": list(CLASSES), "max_length": 16}
    models = {
        "teacher": Served(str(tiny_base), about=about),
        "words": Served(str(light_folders["bag_of_words"])),
    }
    config = MeasureConfig(calls=100, batch_rows=(4,), device="cuda")
    found = time_served(models, make_rows(50, seed=9)["text"].tolist(), config)
    teacher, words = found["teacher"], found["words"]
    # The events stand around the answer, which ends with a copy to the CPU.
    assert teacher.cuda_p50_ms == pytest.approx(teacher.p50_ms, rel=0.5)
    assert teacher.values["latency/cuda_p50_ms"] == teacher.cuda_p50_ms
    assert words.cuda_p50_ms is None
