import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from builders import make_latency
from markdown_it import MarkdownIt
from samples import EVIL_CLASS, EVIL_TEXT, GOOD

from distill_tasks.measuring.cost import CostConfig
from distill_tasks.reporting.notes import gather_notes, group_notes
from distill_tasks.reporting.pages import ON_PAGE, write_markdown, write_note, write_page
from distill_tasks.reporting.sentences import explain_report_columns, headline, say_cost, say_front
from distill_tasks.reporting.tables import name_quality_columns, tabulate_models, tabulate_variants
from distill_tasks.results.references import TEACHER

LINKS = {"This run in MLflow": "http://127.0.0.1:5000/#/runs/1?a=1&b=2"}


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


# Markdown.


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
        assert html.unescape(page).count(EVIL_TEXT) > 10
        assert f"<td>{html.escape(EVIL_CLASS, quote=False)}</td>" in page


def test_the_markdown_tells_the_whole_story(findings):
    text = write_markdown(findings)
    assert text.startswith(f"# small\n\n**{headline(findings)}**\n\nBEATS: ")
    for heading in (
        "Notes",
        "Candidates",
        "Verdicts",
        f"What {GOOD} gets wrong",
        "Calibration",
        "Data",
    ):
        assert f"\n## {heading}\n" in text
    assert findings.curve.meaning in text
    assert findings.tuning.reason in text
    assert say_front(findings) in text
    assert explain_report_columns(findings) in text


def test_all_notes_stand_in_report_and_page_grouped_by_rank(uneven, tmp_path):
    page = html.unescape(page_of(uneven, tmp_path).source)
    text = html.unescape(render(write_markdown(uneven)))
    places = []
    for rank, texts in group_notes(gather_notes(uneven)).items():
        assert f"<summary>{rank.capitalize()} ({len(texts)})</summary>" in page
        places.append(text.index(f"<h3>{rank.capitalize()}</h3>"))
        for note in texts:
            assert note in page
            places.append(text.index(note, places[-1]))
    assert text.count("<h3>Must be acted on") == text.count("<h3>Should be known") == 1
    assert places == sorted(places)


def test_macro_f1_and_the_class_that_suffers_most_are_on_the_first_screen(uneven, tmp_path):
    first = page_of(uneven, tmp_path).source.split("Quality against latency")[0]
    told = html.unescape(first)
    student, teacher = (
        card.figures["quality/macro_f1"]
        for card in (uneven.held_out.candidates[GOOD], uneven.held_out.models[TEACHER])
    )
    assert f"macro F1 {student}, the teacher's {teacher}" in told
    assert told.count("It never predicts fish (7 rows)") == 1
    assert "- It never predicts fish (7 rows)" in write_note(uneven)


# The page.


def test_the_page_opens_offline_with_one_copy_of_plotly(page):
    assert page.fetched == []
    assert "Plotly.newPlot" in page.source
    assert page.source.count("plotly.js v") == 1


def test_the_page_begins_with_six_cards(page):
    assert page.cards == 6
    first = page.source[: page.source.index("Quality against latency")]
    for said in (
        "Promises on held-out",
        "The student",
        "Held-out accuracy",
        "Did the teacher help?",
        "Speed",
        GOOD,
    ):
        assert said in first
    assert "Wrong where the teacher was right" in first
    assert 'class="value beats">BEATS' in first


def test_the_first_screen_says_how_much_faster_at_p50_and_at_p95(findings, tmp_path):
    timed = findings.latencies.by_name | {TEACHER: replace(make_latency(10), p50_ms=4)}
    found = replace(findings, latencies=replace(findings.latencies, by_name=timed))
    first = page_of(found, tmp_path).source.split("Quality against latency")[0]
    assert "20× faster at p50, 25× at p95 (text in, label out)" in first
    assert ">20× · 25×</span>" in first
    assert "faster than the teacher, p50 · p95" in first


def test_no_text_of_the_users_becomes_a_tag(page):
    assert "img" not in page.tags
    assert "alert(1)" not in page.source.replace("&lt;script&gt;alert(1)", "").replace(
        r"\u003cscript\u003ealert(1)", ""
    )
    texts = [row[5] for row in page.rows if len(row) == 6 and row[5].startswith("<img")]
    assert texts
    assert all(text.startswith(EVIL_TEXT) for text in texts)


def test_the_page_shows_every_row_of_the_table_and_what_came_of_it(page, findings):
    shown, text = {tuple(row) for row in page.rows}, html.unescape(page.source)
    for row in tabulate_models(findings):
        first = ("model", *name_quality_columns(findings), *ON_PAGE)
        others = [name for name in row if name not in first[1:] and name != "outcome"]
        assert {tuple(row[name] for name in names) for names in (first, others)} <= shown
        assert row["outcome"] in text


def test_the_page_has_every_section(page):
    assert page.headings == [
        "small",
        "Notes",
        "Quality against latency",
        "All models",
        "Verdicts: student against itself without the teacher",
        f"What {GOOD} gets wrong",
        "Where it says something else than the teacher",
        "Is its confidence to be trusted?",
        "By class",
        "Calibration",
        "On production rows",
        "The teacher before training",
        "Data",
        "Training",
    ]
    assert 'href="http://127.0.0.1:5000/#/runs/1?a=1&amp;b=2"' in page.source


def test_where_nothing_was_chosen_there_is_still_a_page_that_says_why(nothing, tmp_path):
    page, text = page_of(nothing, tmp_path), write_markdown(nothing)
    assert nothing.selection.choice is None
    for written in (page.source, text):
        assert "is nearest and misses max_disk_mb" in written
    assert page.cards == 0
    assert "All models" in page.headings


def test_without_gold_on_held_out_everything_is_agreement(without_gold, tmp_path):
    page, text = page_of(without_gold, tmp_path), write_markdown(without_gold)
    assert without_gold.metric == "agreement"
    assert page.cards == 6
    assert "Held-out agreement" in page.source
    assert "inconclusive" in page.source
    assert "By class" not in page.headings
    assert "held_out has no gold: only agreement with the teacher was measured" in text
    assert "gold None" not in text
    assert "### Disagreements with the teacher" in text


def test_the_report_has_a_section_on_variants_where_there_are_any(findings, exported, tmp_path):
    heading = "Variants: the same student in other runtimes"
    page, text = page_of(exported, tmp_path), write_markdown(exported)
    assert "## Variants" not in write_markdown(findings)
    assert page.headings[2:4] == ["Quality against latency", heading]
    shown = {tuple(row) for row in page.rows}
    for cells in tabulate_variants(exported):
        assert tuple(cells.values()) in shown
        assert f"| {' | '.join(cells.values())} |" in text
    assert str(exported.selection.choice.parity) in page.source
    assert text.count("## Variants") == 1


def test_cost_is_told_in_markdown_and_twice_on_the_page_where_it_is_known(findings, tmp_path):
    prices = CostConfig(machine_hour=3.6, teacher_1000_calls=2.0)
    config = findings.config.model_copy(update={"cost": prices})
    paid = replace(findings, run=replace(findings.run, config=config))
    said, told = say_cost(paid), html.unescape(page_of(paid, tmp_path).source)
    assert said in write_markdown(paid)
    assert told.count(said) == 2
    silent = write_markdown(findings) + page_of(findings, tmp_path).source
    assert "1,000 answers cost" not in silent
