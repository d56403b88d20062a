from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_tasks.serving.served_text import find_words
from distill_tasks.students import terms
from distill_tasks.students.terms import count_terms

WORDS = [f"word{number}" for number in range(30)]
sentences = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1)


@pytest.fixture(params=[2, 64, 4096])
def few_buckets(request, monkeypatch):
    monkeypatch.setattr(terms, "MANY_TEXTS", 0)
    monkeypatch.setattr(terms, "BUCKETS", request.param)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=sentences, limit=st.integers(1, 40))
@pytest.mark.usefixtures("few_buckets")
def test_no_frequent_term_is_left_out_of_many_texts(texts, limit):
    ((counts, names),) = count_terms(texts, 2, 0, limit)
    exact = Counter(term for text in texts for term in find_words(text, 2))
    found = dict(zip(names, np.asarray(counts.sum(axis=0)).ravel().astype(int), strict=True))
    assert found.items() <= exact.items()
    most = sorted(exact.values(), reverse=True)[:limit]
    assert sorted(found.values(), reverse=True)[:limit] == most


def test_few_texts_keep_every_term():
    ((_, names),) = count_terms(["one two", "two three"], 2, 0, 1)
    assert sorted(names) == ["one", "one two", "three", "two", "two three"]
