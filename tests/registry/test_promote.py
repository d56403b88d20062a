from dataclasses import replace

import mlflow
import pytest
from samples import LAYERS, LAYERS_ONNX, STATIC, WORDS_STUDENT

from distill_tasks.core.errors import InputError, PotstillError
from registry.aliases import MOVE, ROLLED_BACK, aliases_of, finish_move
from registry.history import CHANGES, History
from registry.promote import Wish, finish_promotion, promote_version, roll_back
from registry.register import Registered


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


def test_nothing_is_promoted_without_a_comparison_on_record(house, model, pair):
    unwritten = replace(house.allow(pair[1]), basis="another comparison")
    with pytest.raises(PotstillError, match=r"^No comparison of version 2 with champion 1 is on"):
        promote_version(house.client, pair[1], unwritten)
    assert house.aliases(model)["champion"] == 1


def test_any_former_champion_can_be_gone_back_to_and_no_other_version(house, model, pair):
    promote_version(house.client, pair[1], house.allow(pair[1]))
    house.crown(model, STATIC)
    house.register(model, LAYERS_ONNX)
    with pytest.raises(InputError, match=r"^Version 4 of .* never was champion.*: 1, 2\.$"):
        roll_back(house.client, model, Wish(to=4))
    back = roll_back(house.client, model, Wish(to=1, why="wrong on invoices", by="Ada"))
    assert (back.champion, back.previous) == (1, 3)
    event = History(house.client, model).read()[-1]
    assert (event.kind, event.version, event.before) == ("rolled back", 1, 3)
    assert (event.why, event.by) == ("wrong on invoices", "Ada")


def test_every_change_of_champion_stands_in_the_history_once(house, model, pair):
    report = house.allow(pair[1])
    assert not die_after(house, 4, lambda dying: promote_version(dying, pair[1], report))
    finish_promotion(house.client, model)
    roll_back(house.client, model)
    changes = [event for event in History(house.client, model).read() if event.kind in CHANGES]
    assert [(event.kind, event.before, event.version) for event in changes] == [
        ("promoted", None, 1),
        ("promoted", 1, 2),
        ("rolled back", 2, 1),
    ]


class Killed(BaseException):
    """What ends a process between two calls of the registry."""


class Dying(mlflow.MlflowClient):
    """A client whose process ends before the write of some number."""

    def __init__(self, uri, writes):
        super().__init__(uri)
        self.writes = writes

    def spend(self):
        if self.writes == 0:
            raise Killed
        self.writes -= 1

    def set_registered_model_alias(self, *args):
        self.spend()
        super().set_registered_model_alias(*args)

    def delete_registered_model_alias(self, *args):
        self.spend()
        super().delete_registered_model_alias(*args)

    def set_registered_model_tag(self, *args):
        self.spend()
        super().set_registered_model_tag(*args)

    def delete_registered_model_tag(self, *args):
        self.spend()
        super().delete_registered_model_tag(*args)

    def set_model_version_tag(self, *args):
        self.spend()
        super().set_model_version_tag(*args)

    def delete_model_version_tag(self, *args):
        self.spend()
        super().delete_model_version_tag(*args)


def die_after(house, writes, command):
    """Run a command that dies after so many writes; return whether it came to its end."""
    try:
        command(Dying(house.config.tracking.uri, writes))
    except Killed:
        return False
    return True


def test_a_roll_back_after_a_killed_promotion_takes_back_what_was_promoted(house, model, pair):
    report = house.allow(pair[1])
    assert not die_after(house, 4, lambda dying: promote_version(dying, pair[1], report))
    back = roll_back(house.client, model)
    assert (back.champion, back.previous, back.reason) == (1, 2, "rolled back")
    assert house.aliases(model) == {"champion": 1, "previous": 2}


def test_a_champion_that_is_its_own_previous_is_told_from_the_version_taken_back(
    house, model, pair
):
    """What a roll back of an older release left when it was killed between its two aliases."""
    client = house.client
    promote_version(client, pair[1], house.allow(pair[1]))
    client.set_model_version_tag(model, "2", ROLLED_BACK, "true")
    client.set_registered_model_alias(model, "champion", "1")
    assert house.aliases(model) == {"champion": 1, "previous": 1}
    back = roll_back(client, model)
    assert (back.champion, back.previous) == (1, 2)
    assert house.aliases(model) == {"champion": 1, "previous": 2}


@pytest.mark.parametrize("alias", ["previous", "challenger"])
def test_an_alias_on_the_champion_that_means_nothing_there_is_taken_off(house, model, alias):
    name = f"{model}-{alias}"[-60:]
    house.crown(name, LAYERS)
    house.client.set_registered_model_alias(name, alias, "1")
    assert finish_move(house.client, name).champion == 1
    assert house.aliases(name) == {"champion": 1}


def test_a_move_to_a_version_that_was_deleted_since_is_forgotten(house, model, pair):
    report = house.allow(pair[1])
    assert not die_after(house, 3, lambda dying: promote_version(dying, pair[1], report))
    house.client.delete_model_version(model, "2")
    assert finish_move(house.client, model) is None
    third = house.register(model, STATIC)
    promote_version(house.client, third, house.allow(third))
    assert house.aliases(model) == {"champion": 3, "previous": 1}
    assert MOVE not in house.client.get_registered_model(model).tags


def test_a_previous_champion_that_cannot_be_opened_is_not_gone_back_to(house, model):
    house.crown_copy(model, WORDS_STUDENT)
    house.crown(model, LAYERS)
    house.files(model, 1).delete_artifacts()
    for dry_run in (True, False):
        with pytest.raises(InputError, match=f"^models:/{model}/1 cannot be opened"):
            roll_back(house.client, model, dry_run=dry_run)
    assert house.aliases(model) == {"champion": 2, "previous": 1}
