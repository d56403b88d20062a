import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import log_softmax, rel_entr
from scipy.stats import dirichlet

from distill_tasks.llm.distributions import (
    FLOOR,
    Distribution,
    UnusableError,
    average_orders,
    continue_tail,
    disagree,
    from_stated,
    from_top_logprobs,
    from_votes,
)

CODES = ("A", "B", "C", "D")


def logs(**masses):
    """Return tokens with the logarithms of their probabilities."""
    return [(token, math.log(mass)) for token, mass in masses.items()]


def assert_sums_to_one(reply):
    assert np.isfinite(reply.log_probabilities).all()
    assert reply.probabilities.sum() == pytest.approx(1, abs=1e-9)
    assert 0 <= reply.censored <= 1 + 1e-6
    assert 0 <= reply.off_list <= 1


def test_classes_that_are_not_listed_share_what_is_left():
    """Falling on from 0.3 to 0.1 in all: 0.3 f + 0.3 f² = 0.1, and the harmonic mean of both."""
    factor = (math.sqrt(1 + 4 / 3) - 1) / 2
    share = 2 * 0.3 * factor**2 / (1 + factor)
    reply = from_top_logprobs(logs(A=0.6, B=0.3), CODES)
    expected = np.array([0.6, 0.3, share, share])
    np.testing.assert_allclose(reply.probabilities, expected / expected.sum())
    assert reply.censored == pytest.approx(0.1)
    assert reply.off_list == pytest.approx(0)


def test_none_of_them_gets_more_than_the_least_likely_listed_token():
    reply = from_top_logprobs(logs(A=0.5, B=0.1, I=0.02), CODES)
    np.testing.assert_allclose(reply.probabilities, np.array([50, 10, 2, 2]) / 64)
    assert reply.censored == pytest.approx(0.04)
    assert reply.off_list == pytest.approx(0.36)


def test_tokens_that_mean_one_code_are_summed_and_case_counts():
    listed = [("A", math.log(0.4)), (" A", math.log(0.2)), ("\nB ", math.log(0.3)), ("a", -3.0)]
    reply = from_top_logprobs(listed, ("A", "B"))
    np.testing.assert_allclose(reply.probabilities, [2 / 3, 1 / 3])
    assert reply.censored == 0
    assert reply.off_list == pytest.approx(0.1)


def test_a_token_that_is_listed_twice_counts_once():
    twice = [*logs(A=0.6, B=0.3), *logs(A=0.6)]
    once = from_top_logprobs(logs(A=0.6, B=0.3), CODES)
    np.testing.assert_allclose(
        from_top_logprobs(twice, CODES).probabilities, once.probabilities, atol=1e-12
    )
    alike = [("\ufffd", -2.0), ("\ufffd", -3.0), *logs(A=0.6)]  # two parts of characters
    other = from_top_logprobs(alike, ("A",)).off_list
    assert other == pytest.approx(0.4)


@pytest.mark.parametrize("filler", [-math.inf, -9999.0, -1e30])
def test_fillers_are_not_listed_tokens(filler):
    padded = [*logs(A=0.6, B=0.3), ("C", filler), ("x", filler)]
    expected = from_top_logprobs(logs(A=0.6, B=0.3), CODES)
    np.testing.assert_array_equal(
        from_top_logprobs(padded, CODES).log_probabilities, expected.log_probabilities
    )


def test_a_sum_above_one_by_rounding_is_scaled():
    reply = from_top_logprobs([("A", math.log(0.9)), ("B", math.log(0.11))], CODES)
    np.testing.assert_allclose(reply.probabilities, [90 / 101, 11 / 101, FLOOR, FLOOR], rtol=1e-6)
    assert reply.off_list == pytest.approx(0, abs=1e-8)


def test_a_certain_answer_has_finite_logarithms():
    reply = from_top_logprobs([("A", 0.0)], CODES)
    np.testing.assert_allclose(reply.probabilities, [1, FLOOR, FLOOR, FLOOR])
    assert_sums_to_one(reply)


@pytest.mark.parametrize(
    ("listed", "reason", "message"),
    [
        ([], "empty", "no log-probabilities are listed"),
        ([("A", -math.inf), ("B", -9999.0)], "empty", "all of 2 log-probabilities are fillers"),
        ([("A", 0.0), ("B", 0.0)], "zeros", "all of 2 log-probabilities are zero"),
        ([("A", -0.1), ("B", math.nan)], "not_probabilities", "is not a number"),
        ([("A", 12.5), ("B", 3.0)], "not_probabilities", "add up to"),
        ([("A", math.inf)], "not_probabilities", "add up to"),
        ([("A", -0.1), ("B", -0.1)], "not_probabilities", "add up to 1.81"),
        ([("I", -0.5), ("The", -2.0)], "off_list", r"2 tokens .* the likeliest is 'I' \(0.61\)"),
    ],
)
def test_a_list_that_says_nothing_is_refused_with_its_reason(listed, reason, message):
    with pytest.raises(UnusableError, match=message) as refused:
        from_top_logprobs(listed, CODES)
    assert refused.value.reason == reason


def test_two_classes_with_one_code_are_a_mistake():
    with pytest.raises(ValueError, match="code of its own"):
        from_top_logprobs(logs(A=0.5), ("A", "B", "A"))


MASSES = st.lists(st.floats(1e-6, 1), min_size=1, max_size=12)


@st.composite
def lists(draw):
    """Return a list of likeliest tokens, some of them codes, some codes not among them."""
    tokens = draw(st.permutations([*CODES, " A", "x", "y", "The"]))
    masses = np.array(draw(MASSES)[: len(tokens)])
    masses *= draw(st.floats(0.01, 1)) / masses.sum()
    listed = [(token, math.log(mass)) for token, mass in zip(tokens, masses, strict=False)]
    if any(token.strip() in CODES for token, _ in listed):
        return listed
    return [("A", listed[0][1]), *listed[1:]]


def restore_slowly(listed, codes):
    """Restore in plain numbers, class by class, with the factor from another solver."""
    known = dict.fromkeys(codes, 0.0)
    for token, value in listed:
        if token.strip() in known:
            known[token.strip()] += math.exp(value)
    least = math.exp(min(value for _, value in listed))
    silent = [code for code in codes if not known[code]]
    left = max(0.0, 1 - math.fsum(math.exp(value) for _, value in listed))

    def miss(factor):
        return least * math.fsum(factor**rank for rank in range(1, len(silent) + 1)) - left

    factor = 1.0 if miss(1.0) <= 0 else brentq(miss, 0, 1, xtol=1e-15)
    masses = [least * factor**rank for rank in range(1, len(silent) + 1)]
    for code in silent:
        share = len(masses) / math.fsum(1 / mass for mass in masses) if all(masses) else 0.0
        known[code] = min(least, max(FLOOR, share))
    total = math.fsum(known.values())
    return [known[code] / total for code in codes]


@given(lists())
def test_a_second_implementation_restores_the_same(listed):
    reply = from_top_logprobs(listed, CODES)
    slowly = restore_slowly(listed, CODES)
    np.testing.assert_allclose(reply.probabilities, slowly, rtol=1e-6, atol=1e-12)


@given(lists(), st.permutations(CODES))
def test_the_order_of_classes_and_of_tokens_does_not_matter(listed, order):
    reply, turned = from_top_logprobs(listed, CODES), from_top_logprobs(listed[::-1], order)
    back = [order.index(code) for code in CODES]
    np.testing.assert_allclose(turned.log_probabilities[back], reply.log_probabilities)
    assert turned.censored == pytest.approx(reply.censored)
    assert turned.off_list == pytest.approx(reply.off_list)


@given(lists())
def test_all_of_one_is_given_out_and_no_censored_class_leads_a_listed_one(listed):
    reply = from_top_logprobs(listed, CODES)
    assert_sums_to_one(reply)
    named = {token.strip() for token, _ in listed}
    silent = np.array([code not in named for code in CODES])
    if silent.any() and not silent.all():
        assert reply.probabilities[silent].max() <= reply.probabilities[~silent].min() + 1e-12
    listed_classes = reply.probabilities[~silent].sum()
    shared = reply.probabilities[silent].sum() / listed_classes
    assert shared <= reply.censored / (1 - reply.off_list - reply.censored) + 1e-6


FLOORS = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2)


def measure_kl(spread):
    """Return the KL to a teacher of 50 classes of what 20 tell, and by each floor under them."""
    truth = log_softmax(spread * np.random.default_rng(0).normal(size=(100, 50)), axis=1)
    codes = [str(number) for number in range(50)]
    replies, kept = [], np.full_like(truth, -np.inf)
    for row, values in enumerate(truth):
        listed = np.argsort(-values)[:20]
        kept[row, listed] = values[listed]
        replies.append(from_top_logprobs([(codes[n], values[n]) for n in listed], codes))
    restored = np.stack([reply.probabilities for reply in replies])
    kl = rel_entr(np.exp(truth), restored).sum(axis=1).mean()
    by_floor = {}
    for floor in FLOORS:
        dropped = np.maximum(np.exp(log_softmax(kept, axis=1)), floor)
        dropped /= dropped.sum(axis=1, keepdims=True)
        by_floor[floor] = rel_entr(np.exp(truth), dropped).sum(axis=1).mean()
    return kl, by_floor


@pytest.mark.parametrize("spread", [1, 2, 4])
def test_twenty_of_fifty_classes_tell_more_than_nothing_of_the_others(spread):
    kl, by_floor = measure_kl(spread)
    assert kl < min(by_floor[1e-9], by_floor[1e-6])


def test_no_floor_serves_flat_and_sharp_teachers_as_well():
    measured = [measure_kl(spread) for spread in (1, 2, 4)]
    mean = np.mean([kl for kl, _ in measured])
    for floor in FLOORS:
        assert mean < np.mean([by_floor[floor] for _, by_floor in measured]) / 4


@given(st.lists(st.floats(-12, 4), min_size=8, max_size=50), st.integers(3, 7))
def test_a_restored_tail_is_nearer_the_truth_than_a_dropped_one(scores, cap):
    """Nothing but codes is answered, so that all of what is left belongs to the tail."""
    truth = log_softmax(np.array(scores))
    order = np.argsort(-truth, kind="stable")
    codes = [str(number) for number in range(len(truth))]
    reply = from_top_logprobs([(codes[n], truth[n]) for n in order[:cap]], codes)
    dropped = np.full(len(truth), math.log(FLOOR))
    dropped[order[:cap]] = truth[order[:cap]]
    dropped = log_softmax(dropped)
    kl_restored = rel_entr(np.exp(truth), reply.probabilities).sum()
    assert kl_restored <= rel_entr(np.exp(truth), np.exp(dropped)).sum() + 1e-7


@given(st.floats(1e-6, 0.5), st.integers(1, 60), st.floats(0, 1))
def test_a_tail_stays_between_nothing_and_an_equal_share(most, count, part):
    total = part * most * count
    share = continue_tail(total, most, count)
    assert 0 <= share <= total / count + 1e-12
    assert continue_tail(total / 2, most, count) <= share + 1e-12
    if count == 1 or part == 1:
        assert share == pytest.approx(total / count, abs=1e-12)


def test_votes_are_smoothed_by_one_more_that_all_classes_share():
    reply = from_votes([4, 1], 0, 5)
    np.testing.assert_allclose(reply.probabilities, [4.5 / 6, 1.5 / 6])
    np.testing.assert_allclose(reply.standard_error, np.sqrt(0.75 * 0.25 / 5))


def test_votes_of_many_classes_are_not_drowned():
    assert from_votes([5] + [0] * 49, 0, 5).probabilities[0] == pytest.approx(5.02 / 6)


def test_invalid_answers_stay_in_the_denominator():
    clean, spoilt = from_votes([6, 1], 0, 7), from_votes([6, 1], 3, 10)
    np.testing.assert_allclose(spoilt.probabilities, np.array([6 + 2, 1 + 2]) / 11)
    assert spoilt.probabilities[0] < clean.probabilities[0]
    assert spoilt.off_list == pytest.approx(0.3)


@given(st.lists(st.integers(0, 20), min_size=2, max_size=10))
def test_votes_without_invalid_ones_have_the_mean_of_their_posterior(counts):
    if not sum(counts):
        return
    reply = from_votes(counts, 0, sum(counts))
    posterior = dirichlet(np.array(counts) + 1 / len(counts))
    np.testing.assert_allclose(reply.probabilities, posterior.mean())
    assert_sums_to_one(reply)


@pytest.mark.parametrize(
    ("counts", "invalid", "reason"), [([0, 0], 0, "empty"), ([0, 0], 4, "off_list")]
)
def test_votes_without_a_valid_one_are_refused(counts, invalid, reason):
    with pytest.raises(UnusableError) as refused:
        from_votes(counts, invalid, invalid)
    assert refused.value.reason == reason


def test_votes_that_do_not_add_up_are_a_mistake():
    with pytest.raises(ValueError, match="5 votes and 1 invalid ones are not 7"):
        from_votes([4, 1], 1, 7)


def test_stated_confidences_are_normalised_and_zeros_raised():
    reply = from_stated({"cats": 0.76, "dogs": 0.19, "fish": 0.0}, ("cats", "dogs", "fish"))
    expected = np.array([0.8, 0.2, 0.01 / 3])
    np.testing.assert_allclose(reply.probabilities, expected / expected.sum())
    assert reply.censored == reply.off_list == 0


def test_a_class_that_is_not_stated_is_censored_and_an_unknown_name_off_the_list():
    reply = from_stated({"cats": 0.9, "birds": 0.1}, ("cats", "dogs"))
    np.testing.assert_allclose(reply.probabilities, np.array([0.9, 0.005]) / 0.905)
    assert reply.censored == pytest.approx(0.005)
    assert reply.off_list == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("stated", "reason", "message"),
    [
        ({}, "empty", "no confidence"),
        ({"cats": 90, "dogs": 10}, "not_probabilities", "sum to 100, not one"),
        ({"cats": 0.5}, "not_probabilities", "sum to 0.5"),
        ({"cats": 1.2, "dogs": -0.2}, "not_probabilities", "sum to 1,"),
        ({"cats": math.nan}, "not_probabilities", "sum to nan"),
        ({"birds": 1.0}, "off_list", "none of the stated names is a class: birds"),
    ],
)
def test_stated_confidences_that_say_nothing_are_refused(stated, reason, message):
    with pytest.raises(UnusableError, match=message) as refused:
        from_stated(stated, ("cats", "dogs"))
    assert refused.value.reason == reason


def test_orders_are_averaged_as_probabilities():
    one = Distribution(np.log([0.9, 0.1]), 0.2, 0.1)
    other = Distribution(np.log([0.5, 0.5]), 0.0, 0.3)
    mean = average_orders([one, other])
    np.testing.assert_allclose(mean.probabilities, [0.7, 0.3])
    assert (mean.censored, mean.off_list) == (pytest.approx(0.1), pytest.approx(0.2))
    assert mean.standard_error is None


def test_averaged_votes_have_the_standard_error_of_a_mean():
    votes = from_votes([4, 1], 0, 5)
    mean = average_orders([votes, votes])
    np.testing.assert_allclose(mean.standard_error, votes.standard_error / math.sqrt(2))


def test_replies_disagree_if_they_put_different_classes_first():
    one, other = Distribution(np.log([0.6, 0.4])), Distribution(np.log([0.4, 0.6]))
    assert disagree(one, other)
    assert not disagree(one, Distribution(np.log([0.99, 0.01])))
