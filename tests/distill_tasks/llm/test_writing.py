import json
import random

import pytest
from answering import judge, write
from endpoint import ScriptedEndpoint
from endpoint_script import Fault, Script
from samples import CLASSES, make_rows

from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.llm.assignments import TEXTS_EACH, WriterPromptConfig
from distill_tasks.llm.client import Address
from distill_tasks.llm.ledger import Ledger, Limits, OutOfBudgetError, Price
from distill_tasks.llm.writing import Writer, read_texts

WANTED = [(name, number) for name in CLASSES for number in range(3)]


@pytest.fixture
def endpoint():
    script = Script(input_price=1.0, output_price=2.0)
    with ScriptedEndpoint(judge, script, author=write) as running:
        yield running


@pytest.fixture
def open_writer(endpoint, tmp_path):
    rows = make_rows(30, seed=1)
    gold = rows["label"].map(CLASSES.index).to_numpy()
    corpus = Corpus({"train": Split(tuple(rows["text"]), gold)}, CLASSES)
    assigner = WriterPromptConfig().make_assigner(
        corpus, seed=0, most_characters=1000, spare_tokens=8
    )

    def open_it(limits=Limits()):  # noqa: B008
        address = Address(endpoint.url, "oracle-large", "key", Price(1.0, 2.0))
        return Writer(address, Ledger(tmp_path / "ledger.sqlite", limits), assigner)

    return open_it


def test_texts_come_in_the_order_of_the_assignments_and_are_asked_for_once(open_writer, endpoint):
    written = open_writer().write(WANTED)
    assert [len(texts) for texts in written] == [TEXTS_EACH] * len(WANTED)
    for (name, _), texts in zip(WANTED, written, strict=True):
        assert {CLASSES[max(range(3), key=judge(text, CLASSES).__getitem__)] for text in texts} == {
            name
        }
    assert len(endpoint.ledger) == len(WANTED)
    assert open_writer().write([*WANTED, ("cats", 3)])[:-1] == written
    assert len(endpoint.ledger) == len(WANTED) + 1


@pytest.mark.parametrize("taken", ["ignored", "refused"])
def test_an_endpoint_that_cannot_be_held_to_a_list_is_read_all_the_same(
    open_writer, endpoint, taken
):
    endpoint.script.response_format = taken
    written = open_writer().write(WANTED)
    assert [len(texts) for texts in written] == [TEXTS_EACH] * len(WANTED)
    refused = [entry for entry in endpoint.ledger.entries if entry.status == 400]
    assert len(refused) == (2 if taken == "refused" else 0)  # with either name of the limit


def test_a_refusal_writes_nothing(open_writer, endpoint):
    endpoint.script.rates = {Fault.REFUSED: 1.0}
    assert open_writer().write(WANTED) == [[]] * len(WANTED)


def test_a_stop_for_the_budget_keeps_what_was_written(open_writer, endpoint):
    with pytest.raises(OutOfBudgetError, match=r"max_requests .*what was written is kept"):
        open_writer(Limits(calls=4)).write(WANTED)
    assert len(endpoint.ledger) == 4
    open_writer().write(WANTED)
    assert len(endpoint.ledger) == len(WANTED)
    assert not endpoint.ledger.find_asked_twice()


def test_the_estimate_bounds_the_price_and_leaves_that_of_labels_alone(open_writer, endpoint):
    writer = open_writer()
    before = writer.estimate(WANTED)
    assert (before.rows, before.requests, before.measured) == (90, 9, False)
    assert len(endpoint.ledger) == 0
    writer.write(WANTED)
    assert endpoint.ledger.spent <= before.highest
    after = writer.estimate([*WANTED, ("cats", 3)])
    assert (after.requests, after.measured) == (1, True)
    assert after.price == pytest.approx(endpoint.ledger.spent / 9, rel=0.2)
    assert writer.ledger.usual() is None


TEXTS = ["one, [two]", 'a "quoted" text', "three\nlines"]
SAID = {
    "an object": json.dumps({"texts": TEXTS}),
    "a list": json.dumps(TEXTS),
    "a list in a fence": f"Here are [3] texts:\n```json\n{json.dumps(TEXTS, indent=1)}\n```\nGood?",
    "objects": json.dumps([{"text": text} for text in TEXTS]),
    "numbers among them": json.dumps([1, *TEXTS, None, " "]),
    "cut": json.dumps({"texts": [*TEXTS, "and so on"]})[:-5],
}


@pytest.mark.parametrize("form", SAID)
def test_lists_are_read_however_they_are_written(form):
    assert read_texts(SAID[form]) == TEXTS


def test_lists_that_are_no_json_are_read_line_by_line_and_prose_is_none():
    assert read_texts('Sure!\n1. "one"\n2) two\n- three') == ["one", "two", "three"]
    assert read_texts("I cannot help with that.") == []
    assert read_texts("") == []


def test_the_author_repeats_itself():
    texts = write("cats", 40, random.Random(0))
    assert 20 < len(set(texts)) < 40
