"""What the benchmark of the choice rests on: its draws, and the rule as it was."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
MODULES = ("choice", "choice_rules", "newsgroups", "promise_error_rates", "redraws", "reuters")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Make the scripts of benchmarks/ importable, as they import each other."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_parts_of_a_draw_are_disjoint_and_differ_from_draw_to_draw():
    from redraws import Sizes, draw_rows

    generator, sizes = np.random.default_rng(0), Sizes(validation=5, scored=30, held_out=20)
    first, second = (draw_rows(60, sizes, generator) for _ in range(2))
    assert [len(part) for part in first] == [5, 30, 20]
    assert len(np.unique(np.concatenate(first))) == 55
    assert set(first[0]) != set(second[0])
    with pytest.raises(ValueError, match="a draw takes 55 rows, there are 54"):
        draw_rows(54, sizes, generator)


def test_rows_with_gold_hold_every_class_and_no_row_is_in_two_parts():
    from redraws import FEWEST_GOLD, TRANSFER_ROWS, split

    labels = ["common"] * 2990 + ["rare"] * 10
    frame = pd.DataFrame({"text": [str(number) for number in range(3000)], "label": labels})
    gold, transfer, rest = split(frame, 20)
    assert (len(gold), len(transfer), len(rest)) == (20, TRANSFER_ROWS, 980)
    assert (gold["label"] == "rare").sum() >= FEWEST_GOLD
    assert set(pd.concat([gold, transfer, rest])["text"]) == set(frame["text"])


@pytest.mark.parametrize(
    ("choose", "least", "champion"),
    [
        ("most_accurate", 0.9, "large"),
        ("knee", 0.9, "middle"),
        ("knee", 1.0, "large"),  # the teacher is right in 90 %
        ("knee", 1.2, None),
    ],
)
def test_the_rule_as_it_was_trusts_the_estimate_on_validation(choose, least, champion):
    from choice_rules import choose_as_before

    rows = np.arange(100)
    hits = {"large": rows < 92, "middle": rows < 89, "behind": rows < 85, "small": rows < 82}
    seen = SimpleNamespace(
        answered=SimpleNamespace(
            names=list(hits),
            hits=np.stack(list(hits.values())),
            teacher_hits=rows < 90,
            latencies=SimpleNamespace(band=0.05),
        ),
        draw=SimpleNamespace(validation=rows, p95_ms=np.array([10.0, 0.5, 0.6, 0.4])),
        promise=SimpleNamespace(least=least),
    )
    assert choose_as_before(seen, SimpleNamespace(choose=choose)) == champion


def test_models_that_resemble_each_other_have_the_shares_that_were_asked_for():
    from promise_error_rates import draw_hits

    hits = draw_hits(np.random.default_rng(0), [0.75, 0.95, 0.95], 100_000)
    assert hits.mean(axis=1) == pytest.approx([0.75, 0.95, 0.95], abs=0.005)
    assert (hits[1] & hits[2]).mean() > 0.92  # 0.9025 if they were independent
