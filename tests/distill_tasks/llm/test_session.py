"""Sessions with the scripted endpoint, which is slow, breaks, refuses and lies as real ones do."""

import numpy as np
import pytest
from answering import judge
from endpoint_model import Flaws, Model
from endpoint_script import Fault
from samples import CLASSES
from sessions import TEXTS, TRUTH, decide, label

from distill_tasks.core.errors import InputError
from distill_tasks.llm.distributions import Distribution
from distill_tasks.llm.failures import EndpointError
from distill_tasks.llm.labelling import ChangedTeacherError, Rejected
from distill_tasks.llm.ledger import Limits, OutOfBudgetError


def share_right(answers):
    return np.mean([TRUTH[text] == said for text, said in decide(answers).items()])


@pytest.mark.parametrize("method", ["top_logprobs", "token_logprobs", "votes", "verbalised"])
def test_every_method_gives_the_oracles_distribution(open_session, endpoint, method):
    endpoint.script.token_ids = True
    answers = label(open_session(method=method))
    apart = [
        np.abs(found.probabilities - judge(text, CLASSES)).max() for text, found in answers.items()
    ]
    assert len(answers) == len(TEXTS)
    assert np.mean(apart) < {"votes": 0.3, "verbalised": 0.05}.get(method, 0.02)


METHODS = {
    "log-probabilities of token ids": ({"token_ids": True}, "token_logprobs"),
    "a cap of five": ({"max_top_logprobs": 5}, "top_logprobs"),
    "a silent cap of five": ({"max_top_logprobs": 5, "over_cap": "cut"}, "top_logprobs"),
    "log-probabilities ignored": ({"logprobs": "ignored"}, "votes"),
    "zeros": ({"logprobs": "zeros"}, "votes"),
    "an empty list": ({"logprobs": "empty"}, "votes"),
    "log-probabilities refused": ({"logprobs": "refused"}, "votes"),
    "log-probabilities fail": ({"logprobs": "fails"}, "votes"),
    "schemas fail": ({"response_format": "fails"}, "top_logprobs"),
    "several samples ignored": ({"logprobs": "refused", "ignores_n": True}, "votes"),
    "fewer samples than are wanted": ({"logprobs": "refused", "max_n": 2}, "votes"),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_probe_takes_the_first_method_that_really_works(open_session, endpoint, name):
    script, method = METHODS[name]
    for setting, value in script.items():
        setattr(endpoint.script, setting, value)
    session = open_session()
    found = session.identify(TEXTS).probe
    assert found.way.method == method
    assert found.served == "oracle-2026-01-01"
    better = ["token_logprobs", "top_logprobs", "votes"]
    assert list(found.why_not) == better[: better.index(method)]
    assert share_right(label(session)) > (0.6 if method == "votes" else 0.99)


def test_a_method_that_does_not_work_names_those_that_do(open_session, endpoint):
    endpoint.script.logprobs = "ignored"
    with pytest.raises(
        InputError, match=r"teacher\.method is top_logprobs, .* What works here: votes"
    ):
        open_session(method="top_logprobs").identify(TEXTS)


def test_both_orders_take_out_a_liking_for_the_first_option(open_session, endpoint):
    endpoint.script.flaws = Flaws(first_option_bonus=2.0)
    shares = {order: share_right(label(open_session(order=order))) for order in ("one", "both")}
    assert shares["one"] < shares["both"]


def test_rotations_stand_for_two_orders_that_disagree(open_session, endpoint):
    endpoint.script.flaws = Flaws(first_option_bonus=2.0)
    one, both = (
        label(open_session(method="top_logprobs", order=order)) for order in ("one", "both")
    )
    session = open_session(method="top_logprobs", order="rotate")
    session.identify(TEXTS)
    before = len(endpoint.ledger)
    rotated = label(session)
    split = [text for text in TEXTS if not same(both[text], rotated[text])]
    assert len(one) == len(both) == len(rotated) > len(split) > 0
    assert len(endpoint.ledger) - before == 2 * len(split)  # the first of three is known
    truth = np.array([judge(text, CLASSES) for text in split])
    found = np.array([rotated[text].probabilities for text in split])
    biased = np.array([both[text].probabilities for text in split])
    assert np.abs(found - truth).mean() < np.abs(biased - truth).mean()


def same(one, other):
    return np.allclose(one.probabilities, other.probabilities, atol=1e-6)


MANY = [f"class {number}" for number in range(60)]


def pick(text, classes):
    """Judge that a text is of the class that its length says."""
    return [0.9 if name == MANY[len(text) % 60] else 0.1 / 59 for name in classes]


@pytest.mark.parametrize(
    ("script", "method"),
    [
        ({}, "top_logprobs"),
        ({"token_ids": True}, "token_logprobs"),
        ({"digits_apart": True}, "votes"),
    ],
)
def test_sixty_classes_have_numbers_for_codes(open_session, endpoint, script, method):
    endpoint.model = Model(pick)
    for setting, value in script.items():
        setattr(endpoint.script, setting, value)
    session = open_session(classes=MANY)
    assert session.identify(TEXTS).probe.way.method == method
    answers = label(session)
    assert np.mean([len(text) % 60 == found.best for text, found in answers.items()]) > 0.95


def test_no_row_is_asked_twice(open_session, endpoint):
    first = label(open_session(order="both"))
    asked = len(endpoint.ledger)
    again = label(open_session(order="both"))
    assert len(endpoint.ledger) == asked
    assert decide(again) == decide(first)
    probes = endpoint.ledger.find_asked_twice()
    assert len(probes) == 1  # the row that was probed


FAULTS = {
    Fault.RATE_LIMITED: 0.3,
    Fault.SERVER_ERROR: 0.3,
    Fault.UNAVAILABLE: 0.3,
    Fault.TRUNCATED: 0.2,
    Fault.DROPPED: 0.2,
    Fault.SILENT: 0.02,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_waited_for_and_never_costs_more_than_is_recorded(
    open_session, endpoint, fault
):
    session = open_session()
    session.identify(TEXTS)
    endpoint.script.retry_after_s = 0.01
    endpoint.script.rates = {fault: FAULTS[fault]}
    answers = label(session)
    assert decide(answers) == TRUTH
    assert session.ledger.spent().committed >= endpoint.ledger.spent - 1e-9


def test_retry_after_is_honoured(open_session, endpoint):
    session = open_session()
    session.identify(TEXTS)
    endpoint.script.scripted = [Fault.NONE] * len(endpoint.ledger) + [Fault.RATE_LIMITED]
    endpoint.script.retry_after_s = 0.4
    label(session, TEXTS[:1])
    refused, answered = endpoint.ledger.entries[-2:]
    assert (refused.status, answered.status) == (429, 200)
    assert answered.at - refused.at >= 0.4


def test_an_endpoint_that_stays_broken_ends_the_run_and_loses_nothing(open_session, endpoint):
    session = open_session()
    label(session, TEXTS[:20])
    endpoint.script.rates = {Fault.SERVER_ERROR: 1.0}
    with pytest.raises(EndpointError, match=r"answered HTTP 500.*after 6 attempts"):
        label(session, TEXTS)
    endpoint.script.rates = {}
    before = len(endpoint.ledger)
    assert decide(label(session)) == TRUTH
    canaries = 20
    assert len(endpoint.ledger) - before <= len(TEXTS) - 20 + canaries


def test_off_list_answers_are_held_to_the_codes_once(open_session, endpoint):
    session = open_session()
    session.identify(TEXTS)
    endpoint.script.rates = {Fault.OFF_LIST: 0.3}
    answers = label(session)
    held = [entry for entry in endpoint.ledger.entries if entry.constrained]
    assert all(isinstance(found, Distribution) for found in answers.values())
    assert len(held) > 3
    assert max(found.off_list for found in answers.values()) == 0.5


def test_refusals_are_left_out_with_their_reason(open_session, endpoint, caplog):
    session = open_session()
    session.identify(TEXTS)
    endpoint.script.rates = {Fault.REFUSED: 0.3}
    answers = label(session)
    refused = [found for found in answers.values() if isinstance(found, Rejected)]
    assert 3 < len(refused) < len(TEXTS)
    assert f"{len(refused)} of {len(TEXTS)} rows have no answer: the model refuses" in caplog.text
    asked = len(endpoint.ledger)
    label(session)
    assert len(endpoint.ledger) == asked


def test_too_many_rejected_rows_end_the_run_early(open_session, endpoint):
    session = open_session(min_success_ratio=0.9)
    session.identify(TEXTS)
    endpoint.script.rates = {Fault.REFUSED: 0.5}
    with pytest.raises(EndpointError, match=r"min_success_ratio \(0\.9\)"):
        label(session)


def test_a_text_beyond_the_context_is_left_out(open_session, endpoint):
    session = open_session()
    session.identify(TEXTS)
    endpoint.script.context_tokens = 200
    answers = label(session, [*TEXTS[:5], "cat " * 2000])
    assert [isinstance(found, Rejected) for found in answers.values()].count(True) == 1
    assert answers["cat " * 2000] == Rejected("longer than the model's context")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"api_key": "another"}, r"does not accept the key \(HTTP 401\)"),
        ({"model": "another"}, "has no model 'oracle-large'"),
    ],
)
def test_a_wrong_key_or_model_ends_at_once(open_session, endpoint, script, said):
    for setting, value in script.items():
        setattr(endpoint.script, setting, value)
    with pytest.raises(InputError, match=said) as caught:
        open_session(address={"key": "sk-abcdefghijklmnopqrstuvwxyz"}).identify(TEXTS)
    assert "abcdefgh" not in str(caught.value)
    assert len(endpoint.ledger) == 1


def test_the_limit_of_requests_ends_the_run_with_what_was_answered(open_session, endpoint):
    session = open_session(limits=Limits(calls=30))
    session.identify(TEXTS)
    answers = {}
    with pytest.raises(OutOfBudgetError, match=r"max_requests \(30\) is reached.*are kept|kept"):
        answers.update(session.label(TEXTS))
    assert len(endpoint.ledger) == 30
    more = open_session()
    before = len(endpoint.ledger)
    assert decide(label(more)) == TRUTH
    assert len(endpoint.ledger) - before < len(TEXTS) + 30


def test_what_may_be_spent_is_never_exceeded(open_session, endpoint):
    session = open_session(limits=Limits(spend=0.01))
    with pytest.raises(OutOfBudgetError, match=r"max_spend is 0\.01"):
        label(session)
    assert 0 < endpoint.ledger.spent <= 0.01


def test_a_changed_model_is_told_and_not_mixed(open_session, endpoint):
    label(open_session(), TEXTS[:50])
    assert open_session().identify(TEXTS).generation == 1
    endpoint.model = Model(lambda text, classes: np.roll(judge(text, classes), 1).tolist())
    with pytest.raises(ChangedTeacherError, match="of 50 rows that it answered before"):
        open_session().identify(TEXTS)
    open_session().identify(TEXTS[:50])  # nothing to ask: nobody is asked
    renewed = open_session(on_change="ask_again")
    assert renewed.identify(TEXTS).generation == 2
    before = len(endpoint.ledger)
    label(renewed)
    assert len(endpoint.ledger) - before == len(TEXTS)


def test_another_served_name_is_a_change(open_session, endpoint):
    label(open_session(), TEXTS[:50])
    endpoint.script.served_model = "oracle-2026-06-01"
    with pytest.raises(
        ChangedTeacherError, match=r"served oracle-2026-06-01, .* oracle-2026-01-01"
    ):
        open_session().identify(TEXTS)


def test_a_model_that_changes_in_the_middle_ends_the_run_unmixed(open_session, endpoint):
    session = open_session()
    session.identify(TEXTS)
    stream = session.label(TEXTS)
    next(stream)
    endpoint.script.served_model = "oracle-2026-06-01"
    with pytest.raises(ChangedTeacherError):
        list(stream)
    endpoint.script.served_model = "oracle-2026-01-01"
    assert decide(label(open_session())) == TRUTH
