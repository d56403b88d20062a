from dataclasses import replace

import pytest

from distill_tasks.reporting.audit import say_audit, say_self_agreement
from distill_tasks.reporting.notes import gather_notes
from distill_tasks.reporting.pages import write_markdown
from distill_tasks.reporting.rows import TEACHER_AGAIN, list_models
from distill_tasks.results.audit import SelfAgreement
from distill_tasks.results.references import TEACHER

TWICE = SelfAgreement(agreed=188, rows=200)


@pytest.fixture
def noisy(findings):
    """The findings of a teacher that does not always answer alike."""
    found = replace(findings)
    vars(found)["audit"] = replace(findings.audit, self_agreement=TWICE)
    return found


def test_the_ceiling_is_said_with_its_interval():
    assert say_self_agreement(TWICE) == (
        "the teacher agrees with itself in 94 % of 200 rows asked twice [90, 97]: "
        "no student can be expected to agree with it in more than 97 %"
    )


def test_the_ceiling_stands_beside_the_teacher(noisy):
    teacher, again = list_models(noisy)[:2]
    assert (teacher.name, again.name) == (TEACHER, TEACHER_AGAIN)
    assert (again.agreement, again.quality, again.latency) == (0.94, None, None)
    assert again.outcome.endswith("asked twice; students can agree with it in 97 % at most")


def test_the_ceiling_is_a_note(noisy):
    assert say_self_agreement(TWICE) in [note.text for note in gather_notes(noisy)]


def test_a_teacher_that_was_not_asked_twice_has_no_ceiling(findings):
    assert findings.audit.self_agreement is None
    assert TEACHER_AGAIN not in {row.name for row in list_models(findings)}
    assert not [note for note in gather_notes(findings) if "agrees with itself" in note.text]


def test_the_report_has_every_line_of_the_audit(noisy):
    section = write_markdown(noisy).split("## The teacher before training\n\n")[1].split("\n\n")[0]
    assert len(section.splitlines()) == len(say_audit(noisy.audit))
