import csv
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from samples import CLASSES, EVIL_CLASS, EVIL_TEXT, make_rows
from sklearn.metrics import precision_recall_fscore_support

from distill_tasks.core.markup import from_cell
from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.measuring.latency import MeasureConfig
from distill_tasks.reporting.comparison import MOST_CHARACTERS, MOST_FLIPS, write_files
from distill_tasks.results.review import GateReport
from distill_tasks.serving.served_model import open_model
from distill_tasks.students import BagOfWordsStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.training.objective import Objective
from registry.comparison import describe_comparison, write_comparison
from registry.served import Asked
from registry.side_by_side import compare_asked

NAMES = (EVIL_CLASS, "=SUM(A1)", *CLASSES[2:])


class Page(HTMLParser):
    """The tags of a page, the cells of its tables, and what it would fetch."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.rows, self.fetched, self.in_cell = [], [], [], False
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [value for key, value in attributes if key in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        self.in_cell = tag in ("td", "th")
        if self.in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, _):
        self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def rows():
    made = make_rows(120, seed=8)
    gold = np.array([CLASSES.index(label) for label in made["label"]])
    evil = np.where(np.arange(len(gold)) % 9, "", f"{EVIL_TEXT} ")  # not so often as to be learnt
    return Split(tuple(evil + made["text"]), gold)


@pytest.fixture(scope="module")
def pair(rows, tmp_path_factory):
    """A challenger that knows few words beside a champion that knows many, both really asked."""
    sharp = SoftLabels(8 * np.eye(3, dtype=np.float32)[rows.gold], NAMES, "by hand")
    training_set = TrainingSet(rows, sharp, rows, NAMES, Objective(1.0, 0.5), 0, None)
    asked = []
    for version, features in ((3, 15), (2, 300)):
        folder = tmp_path_factory.mktemp(str(features))
        BagOfWordsStudent(max_features=features).train(training_set, folder)
        model = open_model(folder)
        answers = model.answer(rows.texts)
        labels, sure = [[a.label] for a in answers], [a.confidence for a in answers]
        asked.append(Asked(f"models:/pets/{version}", model, labels, sure))
    return compare_asked(*asked, rows, NAMES, MeasureConfig(calls=20))


@pytest.fixture(scope="module")
def report(pair):
    told = {"verdict": pair.comparison.verdict, "difference": pair.comparison.difference}
    return GateReport(3, 2, "rows", promote=False, reason=f"{EVIL_CLASS} is worse", **told)


@pytest.fixture(scope="module")
def comparison(pair, rows, report):
    return describe_comparison(pair, rows, NAMES, report)


@pytest.fixture(scope="module")
def folder(pair, rows, report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "comparison"
    write_comparison(pair, rows, NAMES, report, folder)
    return folder


@pytest.fixture(scope="module")
def right(pair, rows):
    """Which rows challenger and champion get right."""
    return [
        np.array(
            [label == NAMES[gold] for (label,), gold in zip(one.labels, rows.gold, strict=True)]
        )
        for one in pair.asked
    ]


def test_classes_have_the_figures_of_both_and_the_largest_loss_comes_first(comparison, pair, rows):
    gold = [NAMES[number] for number in rows.gold]
    answers = ([label for (label,) in one.labels] for one in pair.asked)
    ours, theirs = (
        precision_recall_fscore_support(gold, said, labels=NAMES, zero_division=0)
        for said in answers
    )
    for row in comparison.classes:
        number = NAMES.index(row.name)
        for place, found in enumerate((row.precision, row.recall, row.f1)):
            expected = ours[place][number], theirs[place][number]
            assert [value or 0.0 for value in found] == pytest.approx(expected)
        assert row.rows == ours[3][number]
    changes = [row.change for row in comparison.classes]
    assert changes == sorted(changes)
    assert changes[0] < 0


def test_rows_flip_where_exactly_one_is_right_and_the_newly_wrong_come_first(comparison, right):
    flips, (ours, theirs) = comparison.flips, right
    assert sorted(flip.row for flip in flips) == np.flatnonzero(ours != theirs).tolist()
    assert comparison.newly_wrong == (theirs & ~ours).sum() > 0
    assert [flip.newly_wrong for flip in flips] == sorted(
        (bool(theirs[flip.row]) for flip in flips), reverse=True
    )
    wrong = [flip.confidences[0] for flip in flips if flip.newly_wrong]
    assert wrong == sorted(wrong, reverse=True)


def test_the_table_of_flips_is_safe_to_open_and_whole(folder, comparison, rows):
    with (folder / "flips.csv").open(encoding="utf-8-sig", newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(comparison.flips)
    for cells, flip in zip(written, comparison.flips, strict=True):
        assert from_cell(cells["text"]) == rows.texts[flip.row]
        assert from_cell(cells["gold"]) == flip.gold
        said = from_cell(cells["challenger"]), from_cell(cells["champion"])
        assert said == flip.answers
        assert not any(cell.startswith("=") for cell in cells.values())


def test_the_figures_are_there_for_programs(folder, pair, right):
    told = json.loads((folder / "comparison.json").read_text())
    assert told["challenger"]["quality"]["value"] == pytest.approx(right[0].mean())
    assert told["champion"]["quality"]["value"] == pytest.approx(right[1].mean())
    assert told["difference"]["value"] == pytest.approx(pair.comparison.difference.value)
    assert told["newly_wrong"] - told["newly_right"] == right[1].sum() - right[0].sum()
    assert told["agreement"] == pair.agreement
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_all_of_it_and_fetches_nothing(folder, comparison):
    page = Page((folder / "comparison.html").read_text())
    assert all(address.startswith("data:image/png;base64,") for address in page.fetched)
    figures = {row[0]: row[1:] for row in page.rows if row}
    champion, challenger = comparison.champion, comparison.challenger
    assert figures["held-out"] == ["champion, version 2", "challenger, version 3", "change"]
    change = comparison.difference.points
    assert figures["accuracy"] == [str(champion.quality), str(challenger.quality), change]
    assert figures["p95 ms"][:2] == [f"{one.p95_ms:.3g}" for one in (champion, challenger)]
    worst = comparison.classes[0]
    ours, theirs = worst.f1
    assert figures[worst.name][1:3] == [
        f"{ours - theirs:+.3f}",
        f"{theirs:.3f}\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}{ours:.3f}",
    ]
    flip = comparison.flips[0]
    ours, theirs = (
        f"{label} ({100 * sure:.0f} %)"
        for label, sure in zip(flip.answers, flip.confidences, strict=True)
    )
    assert figures[str(flip.row)] == ["newly wrong", flip.text, flip.gold, theirs, ours]


def test_nothing_that_users_wrote_is_markup_on_the_page(folder):
    tags = Page((folder / "comparison.html").read_text()).tags
    assert tags.count("img") == 1
    assert set(tags) <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "img"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }


def test_a_page_shows_the_first_flips_of_many_and_cuts_their_texts(comparison, tmp_path):
    text = "x" * 1000
    many = [replace(comparison.flips[0], row=row, text=text) for row in range(MOST_FLIPS + 50)]
    write_files(replace(comparison, flips=many, look="Look 7."), tmp_path)
    source = (tmp_path / "comparison.html").read_text()
    assert source.count("newly wrong") == MOST_FLIPS
    assert f">{'x' * MOST_CHARACTERS}…<" in source
    assert f"The first {MOST_FLIPS} are shown" in source
    assert "<p>Look 7.</p>" in source
    assert len((tmp_path / "flips.csv").read_text().splitlines()) == MOST_FLIPS + 51


def test_answers_with_several_labels_flip_where_all_of_them_are_right(pair, rows):
    both = np.array([[c == n for c in range(3)] for n in rows.gold])
    both[:, 2] = True
    gold = Split(rows.texts, both.astype(np.int64))
    ours, theirs = (
        replace(one, labels=[[*labels, NAMES[2]] for labels in one.labels]) for one in pair.asked
    )
    none = replace(ours, labels=[[] for _ in ours.labels])
    compared = compare_asked(none, theirs, gold, NAMES, MeasureConfig(calls=20), "micro_f1")
    report = GateReport(3, 2, "rows", promote=False, reason="NO BEATS")
    found = describe_comparison(compared, gold, NAMES, report)
    assert found.newly_right == 0
    assert found.flips[0].answers[0] == ""
    assert found.flips[0].gold.endswith(f"|{NAMES[2]}") or found.flips[0].gold == NAMES[2]
    assert found.challenger.quality.value == 0 < found.champion.quality.value
