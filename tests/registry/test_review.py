from dataclasses import replace

import pytest
from samples import LAYERS, WORDS_STUDENT

from distill_tasks.config import RegistryConfig
from distill_tasks.core.errors import InputError
from distill_tasks.scoring.verdicts import Verdict
from registry.aliases import tags_of
from registry.gate import keep_gate
from registry.history import History
from registry.promote import promote
from registry.review import (
    Decision,
    decide_review,
    find_decided,
    find_nothing,
    read_decision,
    reject,
)

APPROVAL = Decision("approved", "Ada", "flips read")


@pytest.fixture
def pair(house, model):
    """A champion, version 1, and a challenger, version 2."""
    return house.crown(model, LAYERS), house.register(model, WORDS_STUDENT)


@pytest.fixture
def failed(house, pair):
    """The report of a challenger that did not pass the gate."""
    report = replace(
        house.allow(pair[1]), promote=False, reason="worse", verdict=Verdict.NO_BEATS, basis="other"
    )
    keep_gate(house.client, pair[1], report)
    return report


def promote_as(house, mode, registered, gate, **told):
    registry = RegistryConfig(model=registered.model, promote=mode)
    config = house.config.model_copy(update={"registry": registry})
    return promote.fn(config, registered, gate, **told)


def say(house, registered, **tags):
    """Set tags of a version as a person does in MLflow; an underscore stands for a dot."""
    for name, text in tags.items():
        house.client.set_model_version_tag(
            registered.model, str(registered.version), name.replace("_", "."), text
        )


def list_decided(house, model):
    return [(one.version, decision) for one, decision in find_decided(house.client, model)]


def kinds(house, model):
    return [event.kind for event in History(house.client, model).read()]


def test_a_version_that_passed_waits_for_a_person_and_is_announced_once(house, model, pair):
    gate = house.allow(pair[1])
    for _ in range(2):
        held = promote_as(house, "review", pair[1], gate)
    assert (held.moved, held.waits, held.champion) == (False, True, 1)
    assert held.reason == "version 2 passed the gate and waits for a review: by hand"
    tags = tags_of(house.client, pair[1])
    assert (tags["gate"], tags["review"]) == ("passed", "pending")
    assert "approved or rejected" in tags["review.note"]
    assert kinds(house, model).count("review pending") == 1
    assert find_decided(house.client, model) == []


def test_never_is_never_whatever_the_gate_says(house, pair):
    held = promote_as(house, "never", pair[1], house.allow(pair[1]), approval=APPROVAL)
    assert (held.moved, held.waits) == (False, False)
    assert held.reason == "version 2 passed the gate and registry.promote is never: by hand"
    assert "review" not in tags_of(house.client, pair[1])


def test_an_approval_by_tag_is_carried_out_in_the_persons_name(house, model, pair):
    gate = house.allow(pair[1])
    promote_as(house, "review", pair[1], gate)
    say(house, pair[1], review=" Approved ", review_by="Ada", review_reason="flips read")
    assert list_decided(house, model) == [(2, APPROVAL)]
    moved = promote_as(house, "review", pair[1], gate, approval=APPROVAL)
    assert (moved.moved, moved.champion, moved.previous) == (True, 2, 1)
    event = History(house.client, model).read()[-1]
    assert (event.kind, event.version, event.before, event.by) == ("promoted", 2, 1, "Ada")
    assert event.why == "approved by Ada: flips read; by hand"


@pytest.mark.parametrize("word", ["aproved", "yes", "promote it", "rejected?"])
def test_a_word_that_is_no_decision_is_answered_by_a_tag(house, model, word):
    name = f"{model}-{len(word)}"
    version = house.register(name, LAYERS)
    house.allow(version)
    say(house, version, review=word)
    assert find_decided(house.client, name) == []
    tags = tags_of(house.client, version)
    assert tags["review"] == "pending"
    assert tags["review.note"].startswith(f"review={word!r} is no decision")
    assert tags["review.note"].endswith("write approved or rejected.")


def test_a_version_that_failed_needs_an_override_from_the_command(house, pair, failed):
    with pytest.raises(InputError, match=r"^Version 2 of .*: its gate is failed, so its approval"):
        decide_review(house.client, pair[1], APPROVAL)
    assert "review" not in tags_of(house.client, pair[1])
    overridden = replace(APPROVAL, override="new law")
    decide_review(house.client, pair[1], overridden)
    assert read_decision(house.client, pair[1]) == overridden
    moved = promote_as(house, "review", pair[1], failed, approval=overridden)
    assert (moved.moved, moved.champion) == (True, 2)
    why = History(house.client, pair[1].model).read()[-1].why
    assert why == "approved by Ada: flips read, gate overridden: new law; worse"


@pytest.mark.usefixtures("failed")
def test_a_version_that_failed_needs_an_override_from_the_tag(house, pair):
    say(house, pair[1], review="approved")
    assert read_decision(house.client, pair[1]) is None
    tags = tags_of(house.client, pair[1])
    assert tags["review"] == "pending"
    assert "or the tag review.override" in tags["review.note"]
    say(house, pair[1], review_override="new law", review="approved")
    decision = read_decision(house.client, pair[1])
    assert decision == Decision("approved", "somebody in MLflow", "", "new law")


def test_a_rejected_version_challenges_no_more_and_may_be_approved_later(house, model, pair):
    house.allow(pair[1])
    decide_review(house.client, pair[1], Decision("rejected", "Ada", "worse on invoices"))
    ((version, decision),) = find_decided(house.client, model)
    kept = reject(house.client, version, decision)
    assert (kept.moved, kept.champion) == (False, 1)
    assert kept.reason == "version 2 was rejected by Ada: worse on invoices"
    assert house.aliases(model) == {"champion": 1}
    assert find_decided(house.client, model) == []
    event = History(house.client, model).read()[-1]
    assert (event.kind, event.by, event.why) == ("rejected", "Ada", "worse on invoices")
    decide_review(house.client, pair[1], APPROVAL)
    assert list_decided(house, model) == [(2, APPROVAL)]


def test_a_challenger_about_whom_nobody_decided_is_left_alone_by_those_who_ask_often(
    house, model, pair
):
    promote_as(house, "review", pair[1], house.allow(pair[1]))
    assert find_nothing(house.client, model) is None
    idle = find_nothing(house.client, model, decided_only=True)
    assert (idle.idle, idle.moved, idle.champion) == (True, False, 1)
    assert idle.reason == "nobody has approved or rejected a version since"
    decide_review(house.client, pair[1], APPROVAL)
    assert find_nothing(house.client, model, decided_only=True) is None
