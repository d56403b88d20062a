import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.core.errors import InputError
from distill_tasks.llm.ledger import Ledger, Limits, OutOfBudgetError, Price, Usual, most_tokens

REPLY = {"choices": [{}], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}


def test_a_reply_is_kept_with_its_actual_price(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", Limits(spend=1.0))
    call = ledger.reserve("question", 0.6)
    assert ledger.spent().committed == pytest.approx(0.6)
    assert ledger.replies("question") == []
    ledger.settle(call, 0.1, REPLY, seconds=2.0)
    again = Ledger(tmp_path / "ledger.sqlite")
    assert again.replies("question") == [REPLY]
    assert again.list_requests() == {"question"}
    assert (again.spent().committed, again.spent().calls) == (pytest.approx(0.1), 1)
    assert again.usual() == Usual(10, 2, 2.0, 0.1)


def test_what_a_killed_process_reserved_stays_reserved(tmp_path):
    Ledger(tmp_path / "ledger.sqlite", Limits(spend=1.0)).reserve("question", 0.6)
    ledger = Ledger(tmp_path / "ledger.sqlite", Limits(spend=1.0))
    with pytest.raises(OutOfBudgetError, match=r"max_spend is 1, 0\.6000 of it is spent"):
        ledger.reserve("question", 0.5)
    ledger.reserve("question", 0.4)


def test_what_the_endpoint_surely_did_not_answer_costs_nothing(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", Limits(spend=1.0, calls=1))
    ledger.release(ledger.reserve("question", 1.0))
    assert (ledger.spent().committed, ledger.spent().calls) == (0, 0)
    ledger.reserve("question", 1.0)
    with pytest.raises(OutOfBudgetError, match=r"max_requests \(1\) is reached"):
        ledger.reserve("question", 0.0)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30),
    st.floats(0.1, 3),
)
def test_no_sequence_of_calls_goes_beyond_the_limit(tmp_path_factory, calls, spend):
    path, spent = tmp_path_factory.mktemp("ledger") / "ledger.sqlite", 0.0
    ledger = Ledger(path, Limits(spend=spend))
    for worst, share in calls:
        try:
            call = ledger.reserve("question", worst)
        except OutOfBudgetError:
            assert spent + worst > spend - 1e-9
            continue
        ledger.settle(call, worst * share, REPLY)
        spent += worst * share
    assert ledger.spent().committed == pytest.approx(spent, abs=1e-9)
    assert spent <= spend + 1e-9


def test_several_processes_share_one_limit(tmp_path):
    """As processes would, each thread has a connection of its own."""
    path, barrier = tmp_path / "ledger.sqlite", threading.Barrier(4)
    Ledger(path)

    def spend(_):
        ledger, reserved = Ledger(path, Limits(spend=1.0)), 0
        barrier.wait()
        try:
            while True:
                ledger.reserve("question", 0.01)
                reserved += 1
        except OutOfBudgetError:
            return reserved

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(spend, range(4))) in (99, 100)  # of floats that are not exact


def test_facts_are_remembered(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.recall("model") is None
    ledger.remember("model", {"served": "x"})
    ledger.remember("model", {"served": "y"})
    assert Ledger(tmp_path / "ledger.sqlite").recall("model") == {"served": "y"}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_damage_is_told_and_nothing_is_begun_anew(tmp_path, share, caplog):
    path, requests = tmp_path / "ledger.sqlite", [f"question {number}" for number in range(200)]
    ledger = Ledger(path)
    for request in requests:
        ledger.settle(ledger.reserve(request, 0.5), 0.25, REPLY)
    ledger.close()
    written = bytearray(path.read_bytes())
    start = int(share * len(written))
    written[start : start + 3_000] = b"\x7f" * 3_000
    path.write_bytes(written)
    try:
        replies = [Ledger(path).replies(request) for request in requests]
    except InputError as error:
        assert "the record of what this teacher answered" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert {len(found) for found in replies} <= {0, 1}
    assert all(reply == REPLY for found in replies for reply in found)
    assert ([] in replies) == ("is damaged; that row is asked again" in caplog.text)


def test_a_price_is_for_a_million_tokens():
    assert Price(0.5, 2.0).of(1_000_000, 100_000) == pytest.approx(0.7)


@given(st.text())
def test_no_text_has_more_tokens_than_bytes(text):
    assert most_tokens([text]) >= len(text.encode())


def test_the_file_is_safe_for_kills(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    (mode,) = sqlite3.connect(ledger.path).execute("PRAGMA journal_mode").fetchone()
    assert mode == "wal"
