from dataclasses import replace

import pytest
from builders import make_latency
from samples import GOOD

from distill_tasks.reporting.model_card import write_card
from distill_tasks.reporting.sentences import say_footprint, say_verdict
from distill_tasks.results.outcomes import TEACHER


def card_of(findings):
    return write_card(findings, findings.selection.choice, "http://summary", "http://compare")


@pytest.fixture(scope="module")
def card(findings):
    return card_of(findings)


def test_a_card_has_the_held_out_figures_as_a_table(findings, card):
    assert card.startswith(f"# {GOOD} of small\n")
    assert "\n| --- | --- | --- | --- |\n| " in card
    for name, figure in findings.held_out.models[GOOD].figures.items():
        assert f"| {name} | {figure.value:.4f} | " in card


def test_a_card_says_whether_the_teacher_helped_and_what_serving_takes(findings, card):
    choice = findings.selection.choice
    assert f"**Did the teacher help?** {say_verdict(findings.judgement)[:20]}" in card
    assert f"{choice.latency.p95_ms:.3g} ms (p95)" in card
    assert f"Without mlflow: {say_footprint(choice.footprint)}." in card


def test_a_card_says_what_is_lost_and_how_much_faster_it_is(uneven):
    timed = uneven.latencies.by_name | {TEACHER: make_latency(10)}
    found = replace(uneven, latencies=replace(uneven.latencies, by_name=timed))
    vars(found)["rows"] = uneven.rows
    card = card_of(found)
    assert "**What is lost?** Macro F1 0." in card
    assert "It never predicts fish (7 rows). Class that suffers most: fish (7 rows), F1 0.0" in card
    assert "25× faster at p50, 25× at p95 than the teacher" in card


def test_a_card_links_to_the_runs(card):
    assert "[Summary run](http://summary) · [all candidates side by side](http://compare)" in card


def test_the_card_of_a_variant_says_how_it_runs_and_how_far_it_is_from_torch(exported, card):
    assert f"Runs as onnx: {exported.selection.choice.parity}." in card_of(exported)
    assert "Runs as" not in card
