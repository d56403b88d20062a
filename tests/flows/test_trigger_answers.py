import pytest

from distill_tasks.results.review import GateReport, Promotion, Review
from flows.answers import name_ending
from flows.trigger_answers import ENDINGS

KEPT = {"moved": False, "reason": "it lost", "reused": False}
GATE = GateReport(2, 1, "rows", promote=False, reason="it lost")
CHANGES = [
    *({}, {"moved": True}, {"reused": True}, {"would_move": True}),
    *({"waits": True}, {"idle": True}),
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_name_of_a_flow_s_last_state_says_how_it_ended(changes):
    promotion = Promotion("animals", 1, None, **KEPT | changes)
    assert ENDINGS[Review(promotion, GATE).name] is name_ending(promotion)


def test_every_name_that_is_known_is_one_that_a_flow_ends_with():
    promotions = [Promotion("animals", 1, None, **KEPT | changes) for changes in CHANGES]
    assert {Review(one, GATE).name for one in promotions} == set(ENDINGS)
