from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.llm.trie import PROMPT, LabelTrie, close_labels

END = 99

labels = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
    min_size=2,
    max_size=12,
    unique=True,
)


def score(trie, logits):
    """Return the probability of each label from logits (places, vocabulary), the prompt's first."""
    parts = []
    for choice in trie.choices:
        chosen = logits[choice.place + 1, list(choice.options)]
        parts.append(np.exp(chosen) / np.exp(chosen).sum())
    return np.exp(np.log(np.concatenate(parts)) @ trie.steps)


def test_labels_of_one_token_are_read_behind_the_prompt_alone():
    trie = LabelTrie.build([(5,), (3,), (4,)], END)
    assert trie.tokens == ()
    assert [(choice.place, choice.options) for choice in trie.choices] == [(PROMPT, (3, 4, 5))]
    np.testing.assert_array_equal(trie.steps, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


def test_tokens_behind_which_labels_part_are_read_once():
    trie = LabelTrie.build([(1, 2, 3), (1, 2, 4), (5, 6)], END)
    assert trie.tokens == (1, 2)
    assert trie.depths == (1, 2)
    assert [choice.place for choice in trie.choices] == [PROMPT, 1]


def test_a_label_that_begins_another_ends_with_the_end_token():
    assert close_labels([(1,), (1, 2), (3,)], END) == ((1, END), (1, 2), (3,))


def test_a_long_label_is_as_likely_as_its_first_token_where_nothing_else_begins_so():
    trie = LabelTrie.build([(0,), (1, 2, 3)], END)
    logits = np.array([[0.0, np.log(3), 9, 9]])
    np.testing.assert_allclose(score(trie, logits), [0.25, 0.75], rtol=1e-6)


def test_where_all_labels_begin_alike_the_prompt_is_still_the_first_choice():
    trie = LabelTrie.build([(1, 2), (1, 3)], END)
    assert [choice.options for choice in trie.choices] == [(1,), (2, 3)]


@pytest.mark.parametrize("same", [[(1, 2), (1, 2)], [(1,), ()]])
def test_labels_that_cannot_be_told_apart_are_refused(same):
    with pytest.raises(ValueError, match="two labels have the same tokens, or one has none"):
        LabelTrie.build(same, END)


@given(labels, st.integers(0, 2**32 - 1))
def test_probabilities_of_all_labels_sum_to_one(labels, seed):
    trie = LabelTrie.build(labels, END)
    logits = np.random.default_rng(seed).normal(size=(1 + len(trie.tokens), END + 1))
    np.testing.assert_allclose(score(trie, logits).sum(), 1, rtol=1e-5)


@given(labels)
def test_every_token_stands_behind_those_before_it(labels):
    trie = LabelTrie.build(labels, END)
    assert all(one <= other for one, other in pairwise(trie.depths))
    np.testing.assert_array_equal(trie.before.sum(1), trie.depths)
    assert not np.triu(trie.before, 1).any()


@given(labels, st.randoms())
def test_the_order_of_labels_changes_the_columns_alone(labels, random):
    shuffled = random.sample(range(len(labels)), len(labels))
    one = LabelTrie.build(labels, END)
    other = LabelTrie.build([labels[number] for number in shuffled], END)
    assert (one.paths, set(one.choices)) == (other.paths, set(other.choices))
    logits = np.random.default_rng(0).normal(size=(1 + len(one.tokens), END + 1))
    np.testing.assert_allclose(score(one, logits)[shuffled], score(other, logits), rtol=1e-5)
