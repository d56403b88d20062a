from dataclasses import replace

import pytest
from builders import make_latency
from samples import GOOD

from distill_tasks.reporting.model_card import FIGURES, MOST_CHARACTERS, CardLinks, write_card
from distill_tasks.reporting.sentences import say_footprint, say_verdict
from distill_tasks.results.references import TEACHER
from distill_tasks.results.review import GateReport, Promotion, Review, Standing
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.teachers.api import ApiTeacher

LINKS = CardLinks("http://summary", "http://compare", "get-artifact?path=front.png")


def card_of(findings, review=None):
    return write_card(findings, findings.selection.choice, LINKS, review)


@pytest.fixture(scope="module")
def card(findings):
    return card_of(findings)


def test_a_card_has_the_figures_beside_the_teachers_as_a_table(findings, card):
    assert card.startswith(f"# {GOOD} of small\n")
    assert "\n| --- | --- | --- | --- |\n| accuracy | " in card
    ours, teacher = (findings.held_out.models[name].figures for name in (GOOD, TEACHER))
    for key, name in FIGURES.items():
        if key in ours:
            own, theirs = ours[key], teacher[key]
            interval = f"{own.low:.4f} – {own.high:.4f}"
            assert f"| {name} | {own.value:.4f} | {interval} | {theirs.value:.4f} |" in card
    assert "![Quality against latency of all candidates](get-artifact?path=front.png)" in card
    assert "**Promises on held-out:** none were made." in card


def test_a_card_has_the_champions_column_and_the_outcome_once_the_gate_has_spoken(findings):
    gap = Figure(-0.077, -0.09, -0.06, 900)
    standings = Standing(0.8, 0.7, 1.5, 2.5), Standing(0.877, 0.81, 3.5, 4.5)
    told = {"metric": "accuracy", "challenger": standings[0], "champion": standings[1]}
    gate = GateReport(3, 2, "rows", False, "NO BEATS: worse", Verdict.NO_BEATS, gap, **told)
    review = Review(Promotion("small", 2, 1, False, "NO BEATS: worse", False), gate)
    card = card_of(findings, review)
    assert "**Champion?** Version 3 kept as challenger: loses 7.7 points of accuracy" in card
    assert "&emsp;champion, version 2&emsp; |\n" in card
    rows = {line.split(" | ")[0]: line for line in card.splitlines() if line.startswith("| ")}
    assert rows["| accuracy"].endswith("| 0.8770 |")
    assert rows["| macro F1"].endswith("| 0.8100 |")
    assert rows["| p95 ms"].endswith("| 4.5 |")
    assert rows["| retention"].endswith("| – |")


def test_a_card_is_no_longer_than_a_database_keeps(findings):
    judged = replace(findings.judgement, reason="because " * 900)
    proof = replace(findings.proof, judgements={**findings.proof.judgements, GOOD: judged})
    card = card_of(replace(findings, proof=proof))
    assert len(card) <= MOST_CHARACTERS
    assert "[Summary run](http://summary)" in card


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


def test_a_card_compares_with_the_teachers_best_exported_form_too(with_variants, card):
    said = (
        "10× faster at p50, 10× at p95 than the teacher and 5× faster at p50, 5× at p95 than its "
    )
    assert f"{said}best exported form, teacher-onnx" in card_of(with_variants)
    assert "exported form" not in card


def test_a_card_says_under_which_terms_the_teacher_was_learned_from(findings, card):
    assert "Licence of the teacher" not in card
    licence = {"name": "Terms *of* use", "url": "https://example.org/terms", "may_train": "yes"}
    teacher = ApiTeacher(base_url="https://example.org/v1", model="large", licence=licence)
    config = findings.run.config.model_copy(update={"teacher": teacher})
    told = card_of(replace(findings, run=replace(findings.run, config=config)))
    assert r"Licence of the teacher: Terms \*of\* use (https" in told
