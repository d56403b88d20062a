import io
import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.core.decisions import DECISIONS, log_decision, write_decision
from distill_tasks.core.live import LogLines, terminal

FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[\w.:/@+-]+)', re.ASCII)


def read(line):
    """Return the fields of a line, read as docs/how-to/watch.md says."""
    assert re.fullmatch(rf"decision({FIELD.pattern})*", line, re.ASCII), line
    found = FIELD.findall(line)
    return {key: json.loads(text) if text[0] == '"' else text for key, text in found}


@given(reason=st.text(max_size=40), candidate=st.text(max_size=20))
def test_whatever_users_write_is_one_line_and_read_back(reason, candidate):
    line = write_decision({"stage": "choose", "candidate": candidate, "reason": reason})
    assert line.isascii()
    assert line.isprintable()
    assert read(line) == {"stage": "choose", "candidate": candidate, "reason": reason}


def test_a_value_cannot_pretend_to_be_another_field():
    reason = 'ok" outcome=passed stage="gate'
    assert read(write_decision({"outcome": "failed", "reason": reason})) == {
        "outcome": "failed",
        "reason": reason,
    }


def test_a_line_says_stage_and_outcome_first_its_reason_last_and_no_password(caplog):
    with caplog.at_level(logging.INFO, DECISIONS):
        log_decision(
            "gate", "failed", reason="no answer of http://a:s3cret@h/", version=3, verdict=None
        )
    assert caplog.messages == [
        'decision stage=gate outcome=failed version=3 reason="no answer of http://***@h/"'
    ]


@pytest.mark.parametrize(("people", "lines"), [(True, 0), (False, 1)])
def test_where_people_read_in_a_terminal_sentences_alone_are_shown(monkeypatch, people, lines):
    class Output(io.StringIO):
        def isatty(self):
            return people

    monkeypatch.setattr(terminal, "file", Output())
    handler = LogLines()
    handler.emit(logging.LogRecord(DECISIONS, logging.INFO, "", 0, "decision a=1", (), None))
    assert len(terminal.file.getvalue().splitlines()) == lines
