import pytest
from samples import LAYERS, WORDS_STUDENT

from registry.lineup import read_lineup
from registry.review import Decision, ask_for_review, decide_review, reject


@pytest.fixture
def pair(house, model):
    """A champion, version 1, and a challenger, version 2, that waits for a review."""
    crowned, challenger = house.crown(model, LAYERS), house.register(model, WORDS_STUDENT)
    ask_for_review(house.client, challenger, house.allow(challenger))
    return crowned, challenger


@pytest.mark.usefixtures("pair")
def test_who_is_champion_who_challenges_and_who_waits(house, model):
    lineup = read_lineup(house.client, model)
    assert (lineup.champion, lineup.challenger, lineup.previous) == (1, 2, None)
    assert (lineup.since.kind, lineup.since.version) == ("promoted", 1)
    (waiting,) = lineup.waiting
    assert (waiting.version, waiting.decision) == (2, "pending")
    assert waiting.note.startswith("Set review to approved or rejected")


def test_a_decision_waits_until_it_is_carried_out(house, model, pair):
    said = Decision("rejected", "Ada", "wrong on invoices")
    decide_review(house.client, pair[1], said)
    assert [one.decision for one in read_lineup(house.client, model).waiting] == ["rejected"]
    reject(house.client, pair[1], said)
    assert read_lineup(house.client, model).waiting == ()


@pytest.mark.usefixtures("pair")
def test_nobody_wrote_down_how_a_champion_by_hand_became_one(house, model):
    house.client.set_registered_model_alias(model, "champion", "2")
    lineup = read_lineup(house.client, model)
    assert (lineup.champion, lineup.since) == (2, None)


def test_a_model_that_is_not_registered_has_no_versions(house):
    lineup = read_lineup(house.client, "never-registered")
    assert (lineup.champion, lineup.waiting) == (None, ())
