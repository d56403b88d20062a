import ast
import html
import re
from dataclasses import replace

import pytest
from builders import make_latency
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from samples import GOOD

from distill_tasks.config import RegistryConfig
from distill_tasks.core.markup import as_visible
from distill_tasks.reporting.model_card import FIGURES, MOST_CHARACTERS, CardLinks, write_card
from distill_tasks.reporting.review import tabulate_gate
from distill_tasks.reporting.sentences import say_footprint, say_verdict
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.references import TEACHER
from distill_tasks.results.review import GateReport, Promotion, Review, Standing
from distill_tasks.scoring.fidelity import Slice
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.looks import Look
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
            assert f"| {name} | {theirs.value:.4f} | {own.value:.4f} | {interval} |" in card
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
    assert rows["| p95 ms"].endswith("| 4.5 (this version then 2.5) |")
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


def test_a_card_says_what_it_was_tested_on_and_where_its_figures_say_little(findings, uneven):
    split = uneven.rows.splits["held_out"]
    few = replace(
        uneven.rows, splits=uneven.rows.splits | {"held_out": split.take(split.gold != 2)}
    )
    found = replace(uneven)
    vars(found)["rows"] = few
    card = card_of(found)
    rows = few.splits["held_out"]
    assert f"held\\_out {len(rows):,}" in card.replace("held_out", "held\\_out")
    assert f"Digest of held-out: {rows.digest}." in card
    assert "**Licence:** none was stated, neither of the data nor of the teacher." in card
    assert f"Too few held-out rows to know how good it is at: {few.classes[2]} (0)." in card
    panel = findings.proof.panels[GOOD]
    assert panel.worst is None or f"Worst slice: {panel.worst.kind}" in card


def test_a_card_says_which_look_at_the_rows_it_was(findings):
    promotion, look = Promotion("small", 2, 1, False, "NO BEATS", False), Look(50, 200)
    review = Review(promotion, GateReport(3, 2, "rows", False, "NO BEATS", look=look))
    said = f"**Looks at the held-out rows:** Look 50 at these rows, {str(look).split(', ', 1)[1]}; "
    assert said + look.renewal in card_of(findings, review)
    assert "Looks at" not in card_of(findings)


def call_of(findings, **changes):
    """Return the code on a card, of a run that was configured otherwise."""
    config = findings.config.model_copy(update=changes)
    card = card_of(replace(findings, run=replace(findings.run, config=config)))
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    return [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]


@given(name=st.text(st.sampled_from("ab`\"'\\\n#~{}é"), min_size=1))
@settings(max_examples=30)
def test_a_card_shows_how_to_call_a_model_of_any_name(findings, name):
    data = findings.config.data.model_copy(update={"text_column": (name, "body")})
    registry = RegistryConfig.model_construct(**dict(findings.config.registry) | {"model": name})
    called = call_of(findings, registry=registry, data=data)
    assert f"models:/{name}@champion" in called
    assert {name, "body", "some text"} <= set(called)
    assert {"some text"} < set(call_of(findings))


def rename(findings, name):
    """Return findings in which all that users may name has a name."""
    rows, proof = findings.rows, findings.proof
    classes = tuple(name if one == "fish" else one for one in rows.classes)

    def rename_class(card):
        named = [row | {"class": name} if row["class"] == "fish" else row for row in card.per_class]
        return replace(card, per_class=named)

    models = {key: rename_class(card) for key, card in findings.held_out.models.items()}
    judged = replace(proof.judgements[GOOD], reason=f"of {name}", flags=[f"{name} is rare"])
    worst = Slice("slice", name, 30, 0.5, 0.9)
    panel = replace(proof.panels[GOOD], worst=worst, worst_difference=Figure(-0.4, -0.5, -0.3, 30))
    licence = {"name": f"{name} terms", "url": "https://t.example", "may_train": "yes"}
    teacher = ApiTeacher(base_url="https://t.example/v1", model="large", licence=licence)
    config = findings.config.model_copy(update={"name": f"of {name}.", "teacher": teacher})
    judgements, panels = proof.judgements | {GOOD: judged}, proof.panels | {GOOD: panel}
    found = replace(
        findings,
        run=replace(findings.run, config=config),
        held_out=replace(findings.held_out, models=models),
        proof=replace(proof, judgements=judgements, panels=panels),
    )
    vars(found)["rows"] = replace(rows, classes=classes)
    return found


def show(markdown):
    """Return the tags of markdown as a page, and the text that a reader sees."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    return re.findall(r"<[^>]*>", page), re.sub(r"<[^>]*>", "", page)


def card_and_table(findings, name):
    """Return the card of a reviewed version and the gate's table, in which all has a name."""
    gate = GateReport(3, 2, "rows", False, f"too few rows of {name}", difference=Figure(0, 0, 0, 9))
    review = Review(Promotion("small", 2, 1, False, f"{name} is worse", False), gate)
    return f"{card_of(rename(findings, name), review)}\n\n{markdown_table(tabulate_gate(gate))}"


@given(name=st.text(st.sampled_from("ab1 .:@_*`~[]()<>!#|\\-+=&/\n\t"), min_size=1, max_size=20))
@example(name="<img src=x onerror=alert(1)>")
@example(name="![x](http://evil.example/x.png) www.evil.example")
@example(name="a|b\n\n# c\n\n- d\n\n```\n</code>")
@settings(max_examples=40)
def test_no_name_that_users_give_is_markup_on_a_card_or_in_its_tables(uneven, name):
    tags, text = show(card_and_table(uneven, name))
    plain_tags, plain_text = show(card_and_table(uneven, "TEXT"))
    assert tags == plain_tags
    shown = html.escape(as_visible(name), quote=False)
    assert text.replace("&quot;", '"') == plain_text.replace("&quot;", '"').replace("TEXT", shown)
