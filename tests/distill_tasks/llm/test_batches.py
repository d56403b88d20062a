"""Rows in batches: answered as one by one, asked once, and found again after a kill."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import sessions
from endpoint_model import Flaws
from endpoint_script import Fault
from sessions import IN_BATCHES, TEXTS, TRUTH, decide, label

from distill_tasks.core.errors import InputError
from distill_tasks.llm import batches
from distill_tasks.llm.batch_api import Line
from distill_tasks.llm.distributions import Distribution
from distill_tasks.llm.failures import EndpointError, Failure
from distill_tasks.llm.labelling import ChangedTeacherError, Rejected
from distill_tasks.llm.ledger import Limits, OutOfBudgetError


@pytest.fixture
def open_batched(open_session):
    """Return a function that opens a session whose rows are asked in batches."""
    return lambda **settings: open_session(address=IN_BATCHES, **settings)


def count_batched(endpoint):
    return sum(entry.kind == "batch" for entry in endpoint.ledger.entries)


@pytest.fixture
def apart(endpoint, tmp_path):
    """A session in batches with a ledger of its own."""
    return sessions.open_session(endpoint.url, tmp_path / "apart", order="both", address=IN_BATCHES)


def test_answers_in_batches_are_those_that_come_one_by_one(open_session, apart, endpoint):
    one_by_one, batched = label(open_session(order="both")), label(apart)
    differences = [
        np.abs(one_by_one[text].probabilities - batched[text].probabilities).max() for text in TEXTS
    ]
    assert max(differences) < 1e-9
    assert count_batched(endpoint) == 2 * len(TEXTS)


def test_every_row_is_in_one_batch_at_its_own_price(open_batched, endpoint):
    session = open_batched()
    session.identify(TEXTS)
    probed = endpoint.ledger.spent
    assert decide(dict(zip(TEXTS, session.ask_again(TEXTS, ""), strict=True))) == TRUTH
    assert count_batched(endpoint) == len(TEXTS)
    assert session.ledger.spent().committed == pytest.approx(endpoint.ledger.spent)
    assert endpoint.ledger.spent > probed
    label(open_batched())
    assert count_batched(endpoint) == len(TEXTS)


def test_more_requests_than_a_batch_holds_are_asked_in_several(open_batched, endpoint, monkeypatch):
    monkeypatch.setattr(batches, "MOST_REQUESTS", 17)
    assert decide(label(open_batched())) == TRUTH
    assert len(endpoint.batches.batches) == -(-len(TEXTS) // 17)


def test_orders_that_disagree_and_off_list_answers_come_in_further_batches(open_batched, endpoint):
    endpoint.script.flaws = Flaws(first_option_bonus=2.0)
    session = open_batched(order="rotate")
    session.identify(TEXTS)
    endpoint.script.rates = {Fault.OFF_LIST: 0.3}
    answers = label(session)
    assert all(isinstance(found, Distribution) for found in answers.values())
    assert len(endpoint.batches.batches) > 2
    assert not [entry for entry in endpoint.ledger.entries if entry.kind == "chat"][10:]


def test_rows_that_an_expired_batch_left_are_asked_again(open_batched, endpoint):
    session = open_batched()
    session.identify(TEXTS)
    endpoint.script.batch_expires = True
    with pytest.raises(EndpointError, match="unanswered in 4 batches"):
        label(session)
    endpoint.script.batch_expires = False
    assert decide(label(open_batched())) == TRUTH
    answered = [one.text for one in endpoint.ledger.entries if one.kind == "batch" and one.answered]
    assert len(answered) == len(set(answered))
    assert open_batched().ledger.spent().committed == pytest.approx(endpoint.ledger.spent)


def test_rows_that_fail_are_asked_again_and_those_refused_are_left_out(open_batched, endpoint):
    session = open_batched()
    session.identify(TEXTS)
    endpoint.script.scripted = [Fault.NONE] * len(endpoint.ledger) + [Fault.SERVER_ERROR] * 9
    endpoint.script.context_tokens = 200
    answers = label(session, [*TEXTS, "cat " * 2000])
    assert answers.pop("cat " * 2000) == Rejected("longer than the model's context")
    assert decide(answers) == TRUTH
    assert count_batched(endpoint) == len(TEXTS) + 1 + 9


def test_what_no_row_can_be_asked_ends_at_once(open_batched, endpoint):
    session = open_batched()
    session.identify(TEXTS)
    endpoint.script.model = "another"
    with pytest.raises(InputError, match="has no model 'oracle-large'"):
        label(session)
    assert len(endpoint.batches.batches) == 1
    assert session.ledger.spent().committed == pytest.approx(endpoint.ledger.spent)


def test_a_full_queue_makes_smaller_batches(open_batched, endpoint, caplog):
    endpoint.script.batch_most_lines = 10
    assert decide(label(open_batched())) == TRUTH
    assert "the endpoint's queue is full; batches have" in caplog.text
    endpoint.script.batch_most_lines = 0
    with pytest.raises(EndpointError, match=r"does not take the batch: Enqueued token limit"):
        label(open_batched(order="both"))


def test_a_batch_of_which_nobody_was_told_is_found_and_not_made_again(open_batched, endpoint):
    endpoint.script.lost_batches = 1
    assert decide(label(open_batched())) == TRUTH
    assert (len(endpoint.batches.batches), count_batched(endpoint)) == (1, len(TEXTS))


def test_a_batch_that_was_never_sent_gives_back_what_it_reserved(open_batched, endpoint):
    session = open_batched()
    session.identify(TEXTS)
    session.ledger.reserve_batch([("one", 1.0), ("other", 2.0)])  # and then a kill
    assert decide(label(session)) == TRUTH
    assert session.ledger.open_batches() == []
    assert session.ledger.spent().committed == pytest.approx(endpoint.ledger.spent)


def test_what_may_be_spent_holds_few_rows_at_a_time_and_is_never_exceeded(
    open_batched, apart, endpoint
):
    label(apart)
    whole = endpoint.ledger.spent
    limit, before = 0.7 * whole, len(endpoint.batches.batches)
    with pytest.raises(OutOfBudgetError, match=r"max_spend is .* are answered and kept"):
        label(open_batched(order="both", limits=Limits(spend=limit)))
    assert len(endpoint.batches.batches) - before > 1
    assert 0.5 * limit < endpoint.ledger.spent - whole <= limit
    assert decide(label(open_batched(order="both"))) == TRUTH
    assert count_batched(endpoint) <= 2 * 2 * len(TEXTS)


def test_another_model_in_a_batch_ends_the_run_unmixed(open_batched, endpoint):
    session = open_batched()
    session.identify(TEXTS)
    endpoint.script.served_model = "oracle-2026-06-01"
    with pytest.raises(ChangedTeacherError, match="served oracle-2026-06-01"):
        label(session)


def test_an_endpoint_without_batches_is_told_before_anything_is_asked(open_batched, endpoint):
    open_batched().reach()
    endpoint.script.batches = False
    with pytest.raises(InputError, match=r"has no batches \(HTTP 404\).*Take `batch: true` out"):
        open_batched().reach()
    assert len(endpoint.ledger) == 0


def test_a_batch_left_behind_is_told_to_who_asks_one_by_one(open_session, caplog):
    session = open_session()
    session.ledger.reserve_batch([("one", 1.0)])
    label(session)
    assert "1 requests are in batches that were asked before" in caplog.text


ANSWER = {"choices": [{"message": {"content": "A"}}], "usage": {"prompt_tokens": 3}, "id": "x"}
ERROR = {"error": {"message": "too long", "code": "context_length_exceeded"}}
LINES = {
    "a reply": ({"response": {"status_code": 200, "body": ANSWER}}, None),
    "an error": (
        {"response": {"status_code": 400, "body": ERROR}},
        Failure(400, "too long", "context_length_exceeded"),
    ),
    "an expired request": (
        {"response": None, "error": {"code": "batch_expired", "message": "Not in time."}},
        Failure(408, "Not in time.", "batch_expired"),
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_a_reply_or_says_why_there_is_none(name):
    written, failure = LINES[name]
    line = Line.read(json.dumps({"custom_id": "7"} | written))
    assert (line.call, line.failure) == (7, failure)
    assert line.reply == (
        None if failure else {"choices": ANSWER["choices"], "usage": ANSWER["usage"]}
    )


def test_a_kill_while_a_batch_runs_asks_nothing_twice_and_overspends_nothing(
    open_batched, endpoint, tmp_path
):
    endpoint.script.batch_polls = 1_000_000
    with start(endpoint.url, tmp_path) as killed:
        while not endpoint.batches.batches:
            time.sleep(0.01)
        time.sleep(0.2)
        killed.kill()
    for batch in endpoint.batches.batches.values():
        batch.polls_left = 2
    session = open_batched()
    reserved = session.ledger.spent()
    assert reserved.answered < 10  # the probe's
    assert len(session.ledger.open_batches()) == 1
    assert decide(label(session)) == TRUTH
    assert count_batched(endpoint) == len(TEXTS)
    assert reserved.committed > session.ledger.spent().committed
    assert session.ledger.spent().committed == pytest.approx(endpoint.ledger.spent)
    assert session.ledger.open_batches() == []


def start(url, folder):
    """Start a process that labels all rows."""
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, sessions.__file__, url, str(folder)]
    return subprocess.Popen(command, env=os.environ | paths)
