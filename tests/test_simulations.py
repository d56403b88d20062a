"""What the statistics must reach: error rates, coverage, and the time they take."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distill_tasks.data.corpus import Split
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.scorecard import EvalSplit, Predictions, score
from distill_tasks.scoring.verdicts import compare_answers

ROOT = Path(__file__).parents[1]


def measure(benchmark, *arguments):
    """Run a benchmark and return the figures that it prints last."""
    command = [sys.executable, ROOT / f"benchmarks/{benchmark}.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(3600)  # three minutes where nothing else runs
def test_verdicts_are_rarely_wrong_and_intervals_cover_what_they_say():
    rates = measure("verdict_error_rates")
    assert rates["false_beats"] <= 0.05
    assert rates["power_3_points"] >= 0.80
    for name in ("accuracy", "retention", "agreement"):
        assert 0.93 <= rates[f"coverage_{name}"] <= 0.97, name
    assert rates["false_beats_macro_f1"] <= 0.05
    assert rates["power_macro_f1"] >= 0.80
    assert rates["coverage_macro_f1"] >= 0.90
    assert rates["coverage_macro_f1_difference"] >= 0.75  # one rare row, on which most agree


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_promises_are_rarely_called_kept_that_are_not():
    rates = measure("promise_error_rates")
    assert rates["false_kept"] <= 0.05
    assert rates["power_2_points"] >= 0.60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_store_of_a_million_answers_is_quick_and_small():
    figures = measure("answers_store")
    for fs in ("file", "memory"):
        assert figures[f"write_s_{fs}"] <= 60
        assert figures[f"find_s_{fs}"] <= 10
        assert figures[f"peak_gb_{fs}"] < 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_lose_few_answers_and_never_spend_more_than_is_allowed():
    figures = measure("labelling_client", "600", "6")
    assert (figures["asked_twice"], figures["overspent"]) == (0, 0)
    assert 0 < figures["lost_answers"] <= 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_a_server_does_not_list_is_restored_better_than_dropped():
    figures = measure("censored")
    assert figures["kl_restored"] < figures["kl_dropped"]
    _, low, high = figures["student_difference"]
    assert low > -0.01
    assert high >= 0  # not surely worse
    assert figures["student_difference_short"][1] > 0


@pytest.mark.slow
def test_statistics_of_three_seeds_of_ten_candidates_take_seconds():
    rows, classes, candidates, seeds = 2200, 8, 10, 3
    generator = np.random.default_rng(0)
    gold = generator.integers(classes, size=rows)

    def answer():
        logits = generator.normal(size=(rows, classes)) + 4 * np.eye(classes)[gold]
        return Predictions(logits.astype(np.float32), Calibration())

    split = Split(tuple(map(str, range(rows))), gold)
    names = tuple(f"class {number}" for number in range(classes))
    eval_split = EvalSplit("held_out", split, answer(), names, "single_label", "accuracy")
    groups = [[answer() for _ in range(seeds)] for _ in range(candidates)]
    controls = [[answer() for _ in range(seeds)] for _ in range(candidates)]
    start = time.process_time()
    for ours, theirs in zip(groups, controls, strict=True):
        for predictions in (*ours, *theirs):
            score(eval_split, [predictions])
        score(eval_split, ours)
        score(eval_split, theirs)
        said = [[eval_split.decide(one) for one in group] for group in (ours, theirs)]
        compare_answers(eval_split.gold, *said)
    assert time.process_time() - start < 20
