"""What the demo writes into the README."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTHING = "–"


def model(name, accuracy, verdict=NOTHING, p50=1.0, macro_f1=0.8):
    """Return a row of a run's table."""
    return {
        "model": name,
        "accuracy": f"{accuracy:.4f}",
        "macro F1": f"{macro_f1:.4f}",
        "p50 ms": f"{p50:.3g}",
        "p95 ms": f"{2 * p50:.3g}",
        "speed-up p50": f"{24 / p50:.3g}×",
        "speed-up p95": f"{12 / p50:.3g}×",
        "MB": "2.5",
        "retention": f"{accuracy / 0.96:.4f}",
        "verdict": verdict,
        "against control": "+2.00 [+1.00, +3.00]",
    }


TABLE = [
    model("teacher", 0.96, p50=24, macro_f1=0.9),
    model("words", 0.95, "NO BEATS", p50=0.1),
    model("small", 0.94, "BEATS", p50=0.2),
    model("smaller", 0.93, "INCONCLUSIVE", p50=0.1),
    model("layers", 0.91),
    model("small-on-gold", 0.92),
    model("words-on-gold", 0.87),
]


@pytest.fixture(scope="module")
def readme():
    path = ROOT / "examples/reuters/readme.py"
    spec = importlib.util.spec_from_file_location("reuters_readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_five_rows_say_who_they_are(readme):
    rows = readme.pick_rows(TABLE, "small")
    assert [row["model"] for row in rows] == [
        "the teacher",
        "small, the champion",
        "words, another finalist",
        "small without the teacher",
        "words alone, without a teacher",
    ]
    *_, verdict = rows[1].values()
    assert verdict == "BEATS: +2.00 [+1.00, +3.00] points"
    assert [list(row.values())[-1] for row in (rows[0], rows[3], rows[4])] == [NOTHING] * 3


def test_a_run_with_one_finalist_has_no_other(readme):
    alone = [row for row in TABLE if row["model"] == "small" or row["verdict"] == NOTHING]
    assert len(readme.pick_rows(alone, "small")) == 4


def test_the_headline_gives_both_qualities_and_both_speeds(readme):
    said = " ".join(readme.write_headline(TABLE, "small").split())
    assert "**97.9 %** of its teacher's accuracy" in said
    assert "88.9 % of its macro F1" in said
    assert "**120 times faster** at the median, 60 times at p95" in said


def test_a_part_is_replaced_between_its_markers_alone(readme):
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert readme.fill(text, "x", "new") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"


def test_the_readme_has_both_markers():
    text = (ROOT / "README.md").read_text()
    for name in ("headline", "table"):
        assert text.count(f"<!-- {name} -->\n") == text.count(f"<!-- /{name} -->") == 1
