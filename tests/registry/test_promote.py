from dataclasses import replace

import pytest
from samples import LAYERS, STATIC, WORDS_STUDENT

from distill_tasks.errors import InputError, PotstillError
from registry.aliases import aliases_of
from registry.promote import promote_version, roll_back
from registry.register import Registered


@pytest.fixture
def model(request):
    """A name of its own for each test."""
    return request.node.name.removeprefix("test_")[:60]


@pytest.fixture
def pair(house, model):
    """A champion, version 1, and a challenger, version 2."""
    return house.crown(model, LAYERS), house.register(model, WORDS_STUDENT)


def test_the_first_version_becomes_champion_without_a_previous(house, model):
    first = house.register(model, LAYERS)
    promotion = promote_version(house.client, first, house.allow(first))
    assert (promotion.champion, promotion.previous, promotion.moved) == (1, None, True)
    assert house.aliases(model) == {"champion": 1}


def test_the_former_champion_becomes_previous_and_the_challenger_is_none(house, model, pair):
    assert house.aliases(model) == {"champion": 1, "challenger": 2}
    promotion = promote_version(house.client, pair[1], house.allow(pair[1]))
    assert (promotion.champion, promotion.previous) == (2, 1)
    assert (promotion.moved, promotion.reused, promotion.reason) == (True, False, "by hand")
    assert house.aliases(model) == {"champion": 2, "previous": 1}


def test_the_challenger_stays_if_another_version_is_promoted(house, model, pair):
    third = house.register(model, STATIC)
    promote_version(house.client, pair[1], house.allow(pair[1]))
    assert house.aliases(model) == {"champion": 2, "previous": 1, "challenger": third.version}


def test_a_dry_run_says_what_would_happen_and_moves_nothing(house, model, pair):
    before = house.aliases(model)
    promotion = promote_version(house.client, pair[1], house.allow(pair[1]), dry_run=True)
    assert (promotion.champion, promotion.previous, promotion.moved) == (2, 1, False)
    assert house.aliases(model) == before


def test_a_refusing_report_moves_nothing(house, model, pair):
    before = house.aliases(model)
    refused = replace(house.allow(pair[1]), promote=False, reason="worse")
    promotion = promote_version(house.client, pair[1], refused)
    assert (promotion.champion, promotion.moved, promotion.reason) == (1, False, "worse")
    assert house.aliases(model) == before


def test_a_report_against_another_champion_is_refused(house, model, pair):
    stale = house.allow(pair[1])
    third = house.crown(model, STATIC)
    before = house.aliases(model)
    with pytest.raises(PotstillError, match="was compared to champion 1, but the champion is 3"):
        promote_version(house.client, pair[1], stale)
    assert house.aliases(model) == before
    assert third.version == before["champion"]


def test_a_report_of_another_version_is_refused(house, model, pair):
    third = house.register(model, STATIC)
    before = house.aliases(model)
    with pytest.raises(PotstillError):
        promote_version(house.client, third, house.allow(pair[1]))
    assert house.aliases(model) == before


def test_promoting_the_champion_again_changes_nothing(house, model, pair):
    report = house.allow(pair[1])
    promote_version(house.client, pair[1], report)
    before = house.aliases(model)
    again = promote_version(house.client, pair[1], report)
    assert (again.champion, again.previous) == (2, 1)
    assert (again.moved, again.reused) == (False, True)
    assert house.aliases(model) == before


def test_rolling_back_swaps_and_rolling_back_again_returns(house, model, pair):
    promote_version(house.client, pair[1], house.allow(pair[1]))
    back = roll_back(house.client, model)
    assert (back.champion, back.previous, back.moved) == (1, 2, True)
    assert house.aliases(model) == {"champion": 1, "previous": 2}
    forth = roll_back(house.client, model)
    assert (forth.champion, forth.previous) == (2, 1)
    assert house.aliases(model) == {"champion": 2, "previous": 1}


def test_a_dry_roll_back_moves_nothing(house, model, pair):
    promote_version(house.client, pair[1], house.allow(pair[1]))
    back = roll_back(house.client, model, dry_run=True)
    assert (back.champion, back.previous, back.moved) == (1, 2, False)
    assert house.aliases(model) == {"champion": 2, "previous": 1}


@pytest.mark.parametrize(("crowned", "lacks"), [(True, "previous"), (False, "champion")])
def test_there_is_nothing_to_roll_back_to_at_first(house, crowned, lacks):
    name = f"without-{lacks}"
    (house.crown if crowned else house.register)(name, LAYERS)
    before = house.aliases(name)
    with pytest.raises(InputError, match=f"^{name} has no {lacks} version, .*nothing to roll"):
        roll_back(house.client, name)
    assert house.aliases(name) == before


def test_an_unknown_model_is_refused(house):
    refusal = "^There is no registered model 'nobody'"
    with pytest.raises(InputError, match=refusal):
        aliases_of(house.client, "nobody")
    with pytest.raises(InputError, match=refusal):
        roll_back(house.client, "nobody")
    report = house.allow(house.register("somebody", LAYERS))
    with pytest.raises(InputError, match=refusal):
        promote_version(house.client, Registered("nobody", 1, True), report)
