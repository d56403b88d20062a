"""Terms of texts, which are word or character n-grams: counted, selected or hashed, weighted."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.serving.served_text import HashedTerms, find_characters, find_words

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

MANY_TEXTS = 200_000
"""Texts from which rare terms are left out before they are counted; it takes reading them twice."""
BUCKETS = 2**24


@dataclass(frozen=True)
class Terms:
    """The features of one kind of terms: word n-grams, or character n-grams inside words."""

    features: csr_matrix
    """TF-IDF of each text (rows, terms), scaled to length one."""
    idf: NDArray[np.float32]
    """Inverse document frequency of each term (terms,); empty if terms are hashed."""
    names: list[str]
    """The term of each column; empty if terms are hashed."""


def count_terms(
    texts: Sequence[str], ngrams: int, characters: int, limit: int | None = None
) -> list[tuple[csr_matrix, list[str]]]:
    """Return the counts (rows, terms) and the terms of each kind of terms.

    ``ngrams`` is the length of the longest word n-gram, ``characters`` that of the longest
    character n-gram, 0 for words alone. With ``limit``, rare word n-grams of many texts may be left
    out, but none of the so many most frequent ones.
    """
    lowered = [text.lower() for text in texts]
    if limit is None or len(lowered) <= MANY_TEXTS:
        found = [_count(find_words(text, ngrams) for text in lowered)]
    else:
        found = [_count_frequent(lambda: (find_words(text, ngrams) for text in lowered), limit)]
    if characters:
        # The character n-grams of each distinct word are found only once.
        of_words, words = _count(text.split() for text in lowered)
        inside, runs = _count(find_characters(word, characters) for word in words)
        found.append((of_words @ inside, runs))
    return found


def weigh_terms(counts: csr_matrix, terms: list[str], limit: int, hashed: bool) -> Terms:
    """Return TF-IDF of the most frequent terms, or of all terms in hashed columns without IDF.

    There are at most ``limit`` terms or columns.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    if not terms and not hashed:
        return Terms(counts, np.zeros(0, np.float32), [])
    take = _hash if hashed else _take_frequent
    counts, names = take(counts, terms, limit)
    weigher = TfidfTransformer(sublinear_tf=True, use_idf=not hashed)
    features = weigher.fit_transform(counts)
    idf = [] if hashed else weigher.idf_
    return Terms(features, np.asarray(idf, np.float32), names)


def _count(rows: Iterable[Sequence[str]]) -> tuple[csr_matrix, list[str]]:
    """Return how often each term occurs in each row (rows, terms), and the terms."""
    from scipy.sparse import csr_matrix

    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    columns, ends = array("i"), array("i", [0])
    for terms in rows:
        columns.extend(map(numbers.__getitem__, terms))
        ends.append(len(columns))
    ones = np.ones(len(columns), np.float32)
    counts = csr_matrix((ones, columns, ends), shape=(len(ends) - 1, len(numbers)))
    counts.sum_duplicates()
    return counts, list(numbers)


def _count_frequent(
    read_rows: Callable[[], Iterable[Sequence[str]]], limit: int
) -> tuple[csr_matrix, list[str]]:
    """Return what `_count` does for all terms but rare ones, in memory for the frequent ones alone.

    Terms are first counted by buckets of their hashes, each of which has at least the total of any
    of its terms; then those of the fullest buckets one by one. No term of an emptier bucket is as
    frequent as the ``limit`` most frequent of them, or more buckets are taken.
    """
    buckets = np.zeros(BUCKETS, np.int32)
    for terms in read_rows():
        np.add.at(buckets, np.fromiter(map(hash, terms), np.int64) & (BUCKETS - 1), 1)
    least = max(1, _find_largest(buckets, limit) // 2)
    while True:
        full = buckets >= least
        kept = ([t for t in terms if full[hash(t) & (BUCKETS - 1)]] for terms in read_rows())
        counts, names = _count(kept)
        surely = _find_largest(np.asarray(counts.sum(axis=0)).ravel(), limit)
        if least == 1 or surely >= least:
            return counts, names
        least = max(1, min(surely, least // 2))


def _find_largest(totals: NDArray[np.generic], number: int) -> int:
    """Return the so many-th largest of some totals, 0 if there are fewer."""
    return int(np.partition(totals, -number)[-number]) if len(totals) >= number else 0


def _take_frequent(
    counts: csr_matrix, terms: list[str], limit: int
) -> tuple[csr_matrix, list[str]]:
    """Return only the most frequent terms, in alphabetical order as in scikit-learn."""
    order = np.array(sorted(range(len(terms)), key=terms.__getitem__), np.int64)
    totals = np.asarray(counts.sum(axis=0)).ravel()[order]
    kept = order[np.sort((-totals).argsort()[:limit])]
    return counts[:, kept], [terms[column] for column in kept]


def _hash(counts: csr_matrix, terms: list[str], columns: int) -> tuple[csr_matrix, list[str]]:
    """Return the counts of all terms hashed into columns (rows, columns)."""
    from scipy.sparse import csr_matrix

    places = np.array([*map(HashedTerms(0, columns).get, terms)], np.int32)
    shape = (counts.shape[0], columns)
    hashed = csr_matrix((counts.data, places[counts.indices], counts.indptr), shape=shape)
    hashed.sum_duplicates()
    return hashed, []
