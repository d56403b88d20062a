import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from samples import make_footprint, make_latency
from small_distillation import GOOD, P95_MS, POOR, distil, parse, write_rows

from distill_tasks.config import SelectConfig
from distill_tasks.core.markup import as_label
from distill_tasks.data.rows import read_corpus
from distill_tasks.measuring.cost import CostConfig
from distill_tasks.reporting.charts import (
    draw_confusion,
    draw_learning_curve,
    draw_production,
    draw_reliability,
)
from distill_tasks.reporting.findings import (
    headline,
    list_calibration,
    list_classes,
    list_points,
    list_variants,
    say_front,
    say_verdict,
    tabulate,
    warn,
)
from distill_tasks.reporting.front import draw_front
from distill_tasks.reporting.pages import markdown_table, write_markdown, write_note, write_page
from distill_tasks.results.evaluator import TEACHER
from distill_tasks.results.selection import Candidate, Field
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.parity import Parity
from distill_tasks.stages.select import select_candidate
from distill_tasks.students import formats as variants

LINKS = {"This run in MLflow": "http://127.0.0.1:5000/#/runs/1?a=1&b=2"}
SLOW = make_latency(10)
CLASS = "<script>alert(1)</script>|[cats](http://evil.example) <a href='x'>y</a>"
EVIL = "<img src=x onerror=alert(2)> | `row` ![x](http://evil.example/x.png) [/red]"
"""A class and a beginning of texts that want to be more than text."""


def run(written, **changes):
    config = parse(written | changes)
    return distil(config, read_corpus(config.data, config.seed), P95_MS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Rows whose texts and one class try to break out of a page, with production and slices."""
    folder = tmp_path_factory.mktemp("pages")
    written = write_rows(folder)
    for name in ("train", "validation", "transfer", "held_out"):
        rows = pd.read_parquet(folder / f"{name}.parquet").replace({"label": {"cats": CLASS}})
        rows["text"] = f"{EVIL} " + rows["text"]
        rows["source"] = [("mail", "</script>")[row % 2] for row in range(len(rows))]
        rows.to_parquet(folder / f"{name}.parquet", index=False)
    answers = pd.read_parquet(folder / "answers.parquet").rename(columns={"cats": CLASS})
    answers["text"] = f"{EVIL} " + answers["text"]
    answers.to_parquet(folder / "answers.parquet", index=False)
    data = written["data"] | {
        "slice_column": "source",
        "production": str(folder / "held_out.parquet"),
    }
    return written | {"data": data, "loss": {"alpha": "auto"}}


@pytest.fixture(scope="module")
def findings(written):
    return run(written)


@pytest.fixture(scope="module")
def without_gold(written, tmp_path_factory):
    """The same with held_out that has no label column."""
    path = tmp_path_factory.mktemp("bare") / "held_out.parquet"
    rows = pd.read_parquet(written["data"]["held_out"]).drop(columns="label")
    rows.to_parquet(path, index=False)
    return run(written, data=written["data"] | {"held_out": str(path)})


@pytest.fixture(scope="module")
def nothing(findings):
    """The same where no candidate meets the constraints."""
    field = Field(findings.selection.candidates, np.zeros((2, 2)), 0.0, ())
    selection = select_candidate(field, [], SelectConfig(max_disk_mb=1e-6))
    empty = replace(findings.held_out, candidates={}, on_gold={})
    proof = replace(findings.proof, judgements={}, panels={}, parities={}, production={})
    return replace(findings, selection=selection, held_out=empty, proof=proof)


class Page(HTMLParser):
    """What a browser would make of a page: cards, headings, rows of tables, anything it fetches."""

    def __init__(self, path):
        super().__init__()
        self.cards, self.headings, self.rows, self.fetched, self.tags = 0, [], [], [], []
        self.inside = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.inside.append(tag)
        self.cards += given.get("class") == "card"
        if tag in ("script", "img", "link", "iframe"):
            self.fetched += [given[key] for key in ("src", "href") if key in given]
        if tag == "tr":
            self.rows.append([])
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self.inside and self.inside[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.inside and self.inside[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data


def render(markdown):
    """Return markdown as HTML, as MLflow's page of a run and Prefect's of an artifact would."""
    return MarkdownIt("commonmark").enable("table").render(markdown)


def page_of(findings, folder):
    write_page(findings, LINKS, folder / "report.html")
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def page(findings, tmp_path_factory):
    return page_of(findings, tmp_path_factory.mktemp("page"))


# The table.


def test_the_table_has_teacher_finalists_their_controls_and_the_plain_controls(findings):
    names = [row["model"] for row in tabulate(findings)]
    controls = [f"{GOOD}-on-gold", f"{POOR}-on-gold", "words-on-gold", "majority-class"]
    assert names == [TEACHER, GOOD, POOR, *controls]


def test_every_row_has_every_column_and_the_metric_names_one(findings):
    table = tabulate(findings)
    assert len({tuple(row) for row in table}) == 1
    assert list(table[0])[:3] == ["model", "accuracy", "interval"]
    assert {"seeds", "verdict", "against control", "retention", "agreement", "MB"} <= set(table[0])
    assert {"parameters", "resident MB", "installed MB", "cold start s"} <= set(table[0])
    assert all(isinstance(cell, str) and cell for row in table for cell in row.values())


def test_the_cells_are_the_figures(findings):
    rows = {row["model"]: row for row in tabulate(findings)}
    card, choice = findings.held_out.candidates[GOOD], findings.selection.choice
    assert rows[GOOD]["accuracy"] == f"{card.quality.value:.4f}"
    assert rows[GOOD]["interval"] == f"{card.quality.low:.3f}–{card.quality.high:.3f}"
    assert rows[GOOD]["on validation"] == f"{choice.validation.quality.value:.4f}"
    assert (rows[GOOD]["p50 ms"], rows[GOOD]["p95 ms"]) == ("0.2", "0.4")
    assert rows[GOOD]["verdict"] == "BEATS"
    assert rows[GOOD]["outcome"] == findings.selection.reasons[GOOD]
    control = findings.held_out.on_gold[GOOD].quality.value
    assert rows[f"{GOOD}-on-gold"]["accuracy"] == f"{control:.4f}"
    assert rows[GOOD]["against control"].startswith(
        f"{100 * (card.quality.value - control):+.2f} ["
    )
    assert rows[GOOD]["speed-up"] == "–"  # a saved teacher has no weights to time


def test_speed_up_is_that_of_the_median(findings):
    timed = findings.latencies.by_name | {TEACHER: SLOW}
    fast = replace(findings, latencies=replace(findings.latencies, by_name=timed))
    assert tabulate(fast)[1]["speed-up"] == "25×"
    assert headline(fast).endswith("and is 25× faster (p50, text in, label out).")
    assert [point.role for point in list_points(fast)] == ["chosen", "front", "teacher"]


def test_several_seeds_show_their_spread(findings):
    card = findings.held_out.candidates[GOOD]
    spread = replace(card, spread={"quality/accuracy": (0.8, 0.9)})
    held_out = replace(findings.held_out, candidates=findings.held_out.candidates | {GOOD: spread})
    assert tabulate(replace(findings, held_out=held_out))[1]["seeds"] == "0.8000–0.9000"


# Sentences.


def test_the_headline_names_the_student_and_what_it_keeps(findings):
    kept = findings.held_out.candidates[GOOD].values["fidelity/retention"]
    assert headline(findings) == (
        f"{GOOD} keeps {100 * kept:.1f} % of the teacher's held-out accuracy."
    )


def test_a_verdict_is_said_with_its_reason_ratio_and_flags(findings):
    judgement = replace(findings.proof.judgements[GOOD], flags=["it rains"])
    said, ratio = say_verdict(judgement), judgement.distillation_ratio
    assert said.startswith(f"BEATS: {judgement.reason}. It covers {100 * ratio.value:.0f} % [")
    assert said.endswith("of the way from the control to the teacher. Mind: it rains.")


def test_the_front_is_said_with_who_may_leave_or_join_it(findings):
    assert say_front(findings).startswith(f"On the front: {GOOD}, {POOR}.")
    shaky = replace(findings.selection, leaving=["a"], joining=["b"], undecided=["c", "d"])
    said = say_front(replace(findings, selection=shaky))
    assert "cannot rule them out: c, d." in said
    assert "would leave it: a." in said
    assert "would join it: b." in said


def test_the_front_is_said_with_the_noise_within_which_latencies_tie(findings):
    assert "p95 latencies within 0.0 % of each other count as ties" in say_front(findings)
    loud = findings.latencies.by_name | {POOR: make_latency(P95_MS[POOR], noise=0.043)}
    latencies = replace(findings.latencies, by_name=loud)
    said = say_front(replace(findings, latencies=latencies))
    assert "p95 latencies within 4.3 % of each other count as ties" in said


def test_warnings_hold_the_data_reports_and_the_flags_of_finalists(findings):
    warnings = warn(findings)
    assert set(findings.corpus.report.warnings) <= set(warnings)
    flagged = replace(findings.proof.judgements[GOOD], flags=["it rains"])
    judgements = findings.proof.judgements | {GOOD: flagged}
    proof = replace(findings.proof, judgements=judgements)
    assert f"{GOOD}: it rains" in warn(replace(findings, proof=proof))


def test_a_teacher_no_better_than_words_on_gold_is_a_warning(findings):
    assert not [warning for warning in warn(findings) if "words on gold" in warning]
    models = findings.held_out.models
    weak = replace(findings.held_out, models=models | {TEACHER: models["words-on-gold"]})
    said = [
        warning for warning in warn(replace(findings, held_out=weak)) if "words on gold" in warning
    ]
    assert len(said) == 1
    assert "distillation has little to give here" in said[0]


def test_a_variant_whose_export_failed_is_a_warning_with_the_reason(findings):
    failed = {"layers-2-onnx": "its export failed: TypeError: no such operator"}
    grid = replace(findings.grid, failed=failed)
    said = "layers-2-onnx was left out: its export failed: TypeError: no such operator"
    assert said in warn(replace(findings, grid=grid))
    assert not [warning for warning in warn(findings) if "left out" in warning]


def test_transformers_that_lack_their_variants_for_want_of_a_package_are_a_warning(
    findings, monkeypatch
):
    students = [replace(student, variant="torch") for student in findings.students]
    torch = replace(findings, grid=replace(findings.grid, students=students))
    assert not [warning for warning in warn(torch) if "torch alone" in warning]
    monkeypatch.setattr(variants, "find_spec", lambda _: None)
    (said,) = [warning for warning in warn(torch) if "torch alone" in warning]
    assert "pip install 'potstill[onnx]'" in said
    assert warn(findings) == [warning for warning in warn(torch) if warning != said]
    declined = variants.ExportConfig(variants=())
    config = findings.config.model_copy(update={"export": declined})
    assert said not in warn(replace(torch, run=replace(torch.run, config=config)))


def test_classes_and_calibration_are_those_of_student_and_teacher(findings):
    choice = findings.selection.choice
    classes = list_classes(findings, choice)
    assert [row["class"] for row in classes] == list(findings.rows.classes)
    assert sum(int(row["rows"]) for row in classes) == 200
    assert float(classes[0]["difference"]) == pytest.approx(
        float(classes[0]["F1"]) - float(classes[0]["teacher's F1"]), abs=0.002
    )
    teacher, student = list_calibration(findings, choice)
    assert (teacher["model"], student["model"]) == (TEACHER, GOOD)
    assert student["temperature"] == f"{choice.student.calibration.temperature:.2f}"


# Cost.


def priced(findings, **prices):
    config = findings.config.model_copy(update={"cost": CostConfig(**prices)})
    return replace(findings, run=replace(findings.run, config=config))


def test_without_prices_nothing_is_said_of_cost(findings, page):
    assert findings.costs == {}
    assert "per 1,000" not in tabulate(findings)[0]
    assert "1,000 answers cost" not in write_markdown(findings) + page.source


def test_with_prices_every_candidate_has_its_cost_and_the_chosen_one_a_sentence(findings, tmp_path):
    paid = priced(findings, machine_hour=3.6, teacher_1000_calls=2.0)
    assert set(paid.costs) == {GOOD, POOR}
    rows = {row["model"]: row for row in tabulate(paid)}
    # A mean of 0.2 ms at 3.6 an hour; of 590 rows 2 are paid for every 1,000.
    assert paid.costs[GOOD].student_per_1000 == pytest.approx(0.0002)
    assert rows[GOOD]["per 1,000"] == "0.0002"
    assert rows[POOR]["per 1,000"] == "0.0001"
    assert rows[TEACHER]["per 1,000"] == "2.00"
    assert rows["majority-class"]["per 1,000"] == "–"
    seconds = sum(student.seconds for student in findings.students) + findings.labels.seconds
    asked = len(set(findings.rows.texts))
    assert paid.costs[GOOD].distillation == pytest.approx(seconds / 1000 + 2 * asked / 1000)
    said = f"Of {GOOD}, {paid.costs[GOOD]}."
    assert "is paid back by" in said
    assert said in write_markdown(paid)
    assert html.unescape(page_of(paid, tmp_path).source).count(said) == 2


def test_seeds_variants_and_calibrations_of_one_training_are_paid_for_once(findings):
    paid = priced(findings, machine_hour=3.6, teacher_1000_calls=0.0)
    again = [replace(student, name=f"{student.name}-again") for student in findings.students]
    grid = replace(findings.grid, students=[*findings.students, *again])
    assert replace(paid, grid=grid).costs == paid.costs


def test_of_a_teacher_without_price_or_weights_no_cost_is_known(findings, tmp_path):
    unknown = priced(findings, machine_hour=3.6)
    assert unknown.costs == {}
    assert {row["per 1,000"] for row in tabulate(unknown)} == {"–"}
    assert "1,000 answers cost" not in write_markdown(unknown) + page_of(unknown, tmp_path).source
    timed = replace(findings.latencies, by_name=findings.latencies.by_name | {TEACHER: SLOW})
    assert replace(unknown, latencies=timed).costs[GOOD].teacher_per_1000 == pytest.approx(0.005)


# Variants.


@pytest.fixture(scope="module")
def exported(findings):
    """The same where the chosen student also runs as ONNX, five times as fast, and as int8."""
    changes = {
        "onnx": (0.08, Parity("onnx", 2e-7, 0, 90, Figure(0.0, 0.0, 0.0, 90)), ""),
        "onnx_int8": (
            0.1,
            Parity("onnx_int8", 0.5, 9, 90, Figure(-0.1, -0.2, -0.02, 90)),
            "rejected: loses more than the 0.5 points allowed, -10.00 points against torch",
        ),
    }
    good, poor = findings.selection.candidates
    by_name, candidates = dict(findings.latencies.by_name), [good]
    for variant, (p95_ms, parity, rejected) in changes.items():
        name = f"{GOOD}-{variant.replace('_', '-')}"
        student = replace(good.student, name=name, candidate=name, variant=variant)
        by_name[name] = make_latency(p95_ms)
        takes = make_latency(p95_ms), make_footprint(40), parity, rejected
        candidates.append(Candidate(student, good.validation, *takes))
    candidates.append(poor)
    names = [candidate.name for candidate in candidates[1:3]]
    served = [candidate.student for candidate in candidates[1:3]]
    quality = np.array([c.validation.quality.value for c in candidates])
    field = Field(candidates, quality[:, None] - quality, 0.0, ())
    config = SelectConfig(choose="most_accurate")

    def add(cards):
        return cards | dict.fromkeys(names, cards[GOOD])

    def score(scores):
        return replace(scores, models=add(scores.models), candidates=add(scores.candidates))

    proof, front = findings.proof, f"{GOOD}-onnx"
    held_out = {name: c.parity for name, c in zip(names, candidates[1:3], strict=True)}
    led = {"judgements": proof.judgements, "panels": proof.panels, "production": proof.production}
    led = {key: {front: kept[GOOD], POOR: kept[POOR]} for key, kept in led.items()}
    return replace(
        findings,
        grid=replace(findings.grid, students=[*findings.students, *served]),
        validation=score(findings.validation),
        held_out=score(findings.held_out),
        latencies=replace(findings.latencies, by_name=by_name),
        selection=select_candidate(field, findings.selection.finalists, config),
        proof=replace(proof, parities=held_out, **led),
    )


def test_every_variant_is_a_row_of_the_table_with_its_own_figures(exported):
    assert exported.selection.chosen == f"{GOOD}-onnx"
    rows = {row["model"]: row for row in tabulate(exported)}
    onnx, torch, int8 = (rows[f"{GOOD}{end}"] for end in ("-onnx", "", "-onnx-int8"))
    assert (onnx["p95 ms"], torch["p95 ms"], int8["p95 ms"]) == ("0.08", "0.4", "0.1")
    assert onnx["verdict"] == "BEATS"
    assert torch["verdict"] == int8["verdict"] == "–"  # one verdict for each finalist
    assert torch["outcome"].startswith(f"dominated by {GOOD}-onnx")
    assert int8["outcome"].startswith("rejected: loses more than the 0.5 points allowed")
    assert (onnx["resident MB"], onnx["installed MB"], onnx["cold start s"]) == ("40", "90", "0.25")


def test_variants_are_listed_beside_their_student_with_what_they_gain_and_lose(exported):
    torch, onnx, int8 = list_variants(exported)
    assert (torch["model"], torch["against torch"], torch["other labels"]) == (GOOD, "1.00×", "–")
    assert (onnx["against torch"], onnx["other labels"]) == ("5.00×", "0 of 90")
    assert onnx["largest logit difference"] == "2e-07"
    assert int8["validation accuracy"] == "-10.00 points [-20.00, -2.00]"
    assert int8["held-out accuracy"] == int8["validation accuracy"]
    assert (int8["against torch"], int8["other labels"]) == ("4.00×", "9 of 90")


def test_a_variant_that_held_out_never_saw_has_no_held_out_figure(exported):
    unseen = replace(exported, proof=replace(exported.proof, parities={}))
    assert {row["held-out accuracy"] for row in list_variants(unseen)} == {"–"}


def test_the_report_has_a_section_on_variants_where_there_are_any(findings, exported, tmp_path):
    heading = "Variants: the same student in other runtimes"
    page, text = page_of(exported, tmp_path), write_markdown(exported)
    assert list_variants(findings) == []
    assert "## Variants" not in write_markdown(findings)
    assert page.headings[1:3] == ["Quality against latency", heading]
    shown = {tuple(row) for row in page.rows}
    for row in list_variants(exported):
        assert tuple(row.values()) in shown
        assert f"| {' | '.join(row.values())} |" in text
    assert str(exported.selection.choice.parity) in page.source
    assert text.count("## Variants") == 1


def test_the_time_of_a_training_is_told_once_however_many_variants_it_has(exported):
    (times,) = [line for line in write_markdown(exported).splitlines() if line.startswith("Time: ")]
    assert f"{GOOD} " in times
    assert "onnx" not in times


def test_every_variant_is_a_point_of_the_picture(exported):
    points = {point.name: point for point in list_points(exported)}
    assert list(points) == [GOOD, POOR, f"{GOOD}-onnx", f"{GOOD}-onnx-int8"]
    assert points[f"{GOOD}-onnx"].role == "chosen"
    assert points[GOOD].role == "other"
    assert "rejected: loses more" in points[f"{GOOD}-onnx-int8"].note


def test_a_variant_that_a_later_seed_has_left_out_is_no_point_of_the_picture(findings):
    name = f"{GOOD}-onnx"  # the first seed was exported and timed, another one failed
    timed = findings.latencies.by_name | {name: make_latency(0.1)}
    latencies = replace(findings.latencies, by_name=timed)
    grid = replace(findings.grid, failed={name: "RuntimeError: no such operator"})
    left = replace(findings, latencies=latencies, grid=grid)
    assert [point.name for point in list_points(left)] == [GOOD, POOR]


# Markdown.


def test_a_markdown_table_keeps_its_columns_whatever_the_cells_hold():
    lines = markdown_table([{"a": "x|y", "b": "<b>"}, {"a": "1", "b": "[2, 3]"}]).splitlines()
    assert lines == ["| a | b |", "| --- | --- |", r"| x\|y | &lt;b> |", r"| 1 | \[2, 3] |"]


def test_the_markdown_opens_no_tag_and_keeps_every_table_straight(findings):
    text = write_markdown(findings)
    assert "<script" not in text
    assert "<img" not in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 5  # models, classes, calibration, splits, blends
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


@pytest.mark.parametrize("write", [write_note, write_markdown])
def test_no_text_of_the_users_is_live_in_markdown(findings, write):
    page = render(write(findings))
    assert not set(re.findall(r"<(\w+)", page)) - {
        *("h1", "h2", "h3", "p", "strong", "ul", "li"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    if write is write_markdown:
        assert html.unescape(page).count(EVIL) > 10
        assert f"<td>{html.escape(CLASS, quote=False)}</td>" in page


def test_the_markdown_tells_the_whole_story(findings):
    text = write_markdown(findings)
    assert text.startswith(f"# small\n\n**{headline(findings)}**\n\nBEATS: ")
    for heading in ("Candidates", "Verdicts", f"What {GOOD} gets wrong", "Calibration", "Data"):
        assert f"\n## {heading}\n" in text
    assert findings.curve.meaning in text
    assert findings.tuning.reason in text
    assert say_front(findings) in text


# The page.


def test_the_page_opens_offline_with_one_copy_of_plotly(page):
    assert page.fetched == []
    assert "Plotly.newPlot" in page.source
    assert page.source.count("plotly.js v") == 1


def test_the_page_begins_with_five_cards(page):
    assert page.cards == 5
    first = page.source[: page.source.index("Quality against latency")]
    for said in ("The student", "Held-out accuracy", "Did the teacher help?", "Speed", GOOD):
        assert said in first
    assert "Wrong where the teacher was right" in first
    assert 'class="value beats">BEATS' in first


def test_no_text_of_the_users_becomes_a_tag(page):
    assert "img" not in page.tags
    assert "alert(1)" not in page.source.replace("&lt;script&gt;alert(1)", "").replace(
        r"\u003cscript\u003ealert(1)", ""
    )
    texts = [row[5] for row in page.rows if len(row) == 6 and row[5].startswith("<img")]
    assert texts
    assert all(text.startswith(EVIL) for text in texts)


def test_the_page_shows_every_row_of_the_table_and_what_came_of_it(page, findings):
    shown, text = {tuple(row) for row in page.rows}, html.unescape(page.source)
    for row in tabulate(findings):
        assert tuple(cell for name, cell in row.items() if name != "outcome") in shown
        assert row["outcome"] in text


def test_the_page_has_every_section(page):
    assert page.headings == [
        "small",
        "Quality against latency",
        "All models",
        "Verdicts: student against itself without the teacher",
        f"What {GOOD} gets wrong",
        "Where it says something else than the teacher",
        "Is its confidence to be trusted?",
        "By class",
        "Calibration",
        "On production rows",
        "Data",
        "Training",
    ]
    assert 'href="http://127.0.0.1:5000/#/runs/1?a=1&amp;b=2"' in page.source


def test_where_nothing_was_chosen_there_is_still_a_page_that_says_why(nothing, tmp_path):
    page, text = page_of(nothing, tmp_path), write_markdown(nothing)
    assert nothing.selection.choice is None
    assert headline(nothing) == nothing.selection.why_none
    for written in (page.source, text):
        assert "is nearest and misses max_disk_mb" in written
    assert page.cards == 0
    assert "All models" in page.headings
    assert [point.role for point in list_points(nothing)] == ["front", "front"]


def test_without_gold_on_held_out_everything_is_agreement(without_gold, tmp_path):
    page, text = page_of(without_gold, tmp_path), write_markdown(without_gold)
    assert without_gold.metric == "agreement"
    assert headline(without_gold).startswith(f"{GOOD} agrees with the teacher on ")
    assert page.cards == 5
    assert "Held-out agreement" in page.source
    assert "inconclusive" in page.source
    assert "By class" not in page.headings
    assert "held_out has no gold: only agreement with the teacher was measured" in text
    assert "gold None" not in text
    assert "### Disagreements with the teacher" in text


def test_without_gold_on_held_out_the_picture_is_of_validation_alone(without_gold):
    assert without_gold.validation_metric == "accuracy"
    points = list_points(without_gold)
    assert [point.held_out for point in points] == [None, None]
    accuracy = without_gold.validation.candidates[GOOD].values["quality/accuracy"]
    assert points[0].quality.value == accuracy


# Charts.


def test_no_label_of_a_picture_is_markup(findings):
    panel, classes = findings.proof.panels[GOOD], findings.rows.classes
    (drawn,) = data_of(draw_confusion(panel, classes, several=False))
    assert drawn["x"] == drawn["y"] == [as_label(name) for name in classes]
    assert "<" not in "".join(drawn["x"])
    left_out = replace(findings.selection, reasons={GOOD: "<a href='x'>y</a>", POOR: "b"})
    note = list_points(replace(findings, selection=left_out))[0].note
    assert note.endswith("<br>&lt;a href='x'&gt;y&lt;/a&gt;")
    drawn = data_of(draw_front([replace(list_points(findings)[0], name="<b>x")], "accuracy"))
    named = [text for one in drawn for text in one.get("text", [])]
    assert named == ["&lt;b&gt;x"]


def test_classes_named_as_numbers_or_dates_are_names(findings):
    panel = replace(findings.proof.panels[GOOD], confusion=[[0, 1], [2, 0]])
    layout = draw_confusion(panel, ("10", "2026-01-01"), several=False).layout
    assert (layout.xaxis.type, layout.yaxis.type) == ("category", "category")


def data_of(figure):
    return json.loads(figure.to_json())["data"]


def test_confusion_leaves_out_where_both_agree(findings):
    panel = findings.proof.panels[GOOD]
    (drawn,) = data_of(draw_confusion(panel, findings.rows.classes, several=False))
    for row, counts in enumerate(panel.confusion):
        expected = [None if row == column else count for column, count in enumerate(counts)]
        assert drawn["z"][row] == expected
    (several,) = data_of(draw_confusion(panel, findings.rows.classes, several=True))
    assert several["z"] == panel.confusion
    assert several["x"][0] == "both"


def test_reliability_has_a_line_for_teacher_and_student(findings):
    panel = findings.proof.panels[GOOD]
    calibrated, *lines = data_of(draw_reliability(panel))
    assert calibrated["x"] == calibrated["y"] == [0, 1]
    assert [line["name"] for line in lines] == ["teacher", "student"]
    assert lines[1]["y"] == pytest.approx([one.right for one in panel.reliability["student"]])


def test_the_learning_curve_stands_in_its_intervals(findings):
    (drawn,) = data_of(draw_learning_curve(findings.curve, "accuracy"))
    assert drawn["x"] == [30, 60, 120, 240]
    for number, point in enumerate(findings.curve.points):
        top = drawn["y"][number] + drawn["error_y"]["array"][number]
        bottom = drawn["y"][number] - drawn["error_y"]["arrayminus"][number]
        assert (bottom, top) == pytest.approx((100 * point.quality.low, 100 * point.quality.high))


def test_confidence_on_production_and_held_out_are_shares_of_their_rows(findings):
    production, held_out = data_of(draw_production(findings.proof.production[GOOD]))
    assert [production["name"], held_out["name"]] == ["production", "held-out"]
    assert sum(production["y"]) == pytest.approx(1)
    assert production["y"] == held_out["y"]  # the same rows here
    assert production["x"][0] == pytest.approx(0.025)
