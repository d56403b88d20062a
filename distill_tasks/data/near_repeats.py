"""Near repeats: different texts that share most of their word triples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.core.digests import digest, digest_texts

if TYPE_CHECKING:
    from datasketch import MinHash
    from numpy.typing import NDArray

    from distill_tasks.core.store import Store
    from distill_tasks.data.corpus import Corpus

WORD = re.compile(r"\w+")
SHINGLE_WORDS = 3
PERMUTATIONS = 128
NEAR = 0.8
"""Jaccard similarity of word triples from which two texts are near duplicates."""
SEED = 1
PAIRS_AT_ONCE = 10_000
"""Pairs that are compared at once."""

Place = tuple[str, int]
"""A split and a row number in it."""


@dataclass(frozen=True)
class NearRepeats:
    """Pairs of different texts that share most of their word triples, by their digests."""

    pairs: list[tuple[str, str]]

    def place(self, corpus: Corpus) -> list[tuple[Place, Place]]:
        """Return the pairs whose texts a corpus has, where it has them first, in its order."""
        rows = [(name, row) for name, split in corpus.splits.items() for row in range(len(split))]
        texts = [text for split in corpus.splits.values() for text in split.texts]
        numbers = {text: n for n, text in reversed(list(enumerate(digest_texts(texts))))}
        found = [
            sorted((numbers[one], numbers[other]), reverse=True)
            for one, other in self.pairs
            if one in numbers and other in numbers
        ]
        return [(rows[first], rows[later]) for later, first in sorted(found)]


def keep_near_repeats(store: Store, corpus: Corpus, larger: Corpus | None = None) -> NearRepeats:
    """Return the near repeats of a corpus, found once for the same texts and kept.

    ``larger`` is a corpus that has all of its texts and more; its near repeats are taken.
    """
    texts = sorted(digest_texts(corpus.texts))

    def find() -> NearRepeats:
        if larger is not None:
            return keep_near_repeats(store, larger)
        named = {name: digest_texts(split.texts) for name, split in corpus.splits.items()}
        pairs = find_near_repeats(corpus)
        return NearRepeats([(named[a][row], named[b][other]) for (a, row), (b, other) in pairs])

    key = digest(NEAR, PERMUTATIONS, SHINGLE_WORDS, SEED, texts)
    return store.remember("near_repeats", key, NearRepeats, find)[0]


class NearIndex:
    """Texts by their places, in which those that share most word triples with a text are found.

    By MinHash; source: Broder 1997, "On the resemblance and containment of documents".
    """

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._index = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
        self._hashes: dict[Place, MinHash] = {}

    def add(self, texts: Mapping[Place, str]) -> list[tuple[Place, list[Place]]]:
        """Add texts; return the place of each with those, added before, that it nearly repeats."""
        from datasketch import MinHash

        hashed = MinHash.bulk(map(_shingle, texts.values()), num_perm=PERMUTATIONS, seed=SEED)
        return [(place, self._add(place, one)) for place, one in zip(texts, hashed, strict=True)]

    def _add(self, place: Place, signature: MinHash) -> list[Place]:
        near = [
            other
            for other in self._index.query(signature)
            if signature.jaccard(self._hashes[other]) >= NEAR
        ]
        self._hashes[place] = signature
        self._index.insert(place, signature)
        return near


def find_near_repeats(corpus: Corpus) -> list[tuple[Place, Place]]:
    """Return pairs of different texts that share most of their word triples.

    Of equal texts only the first one is compared. What `NearIndex` finds one by one is found here
    by sorting, in half a kilobyte for each text.
    """
    places: dict[str, Place] = {}
    for name, split in corpus.splits.items():
        for row, text in enumerate(split.texts):
            places.setdefault(text, (name, row))
    signatures = _sign(list(places))
    place = list(places.values())
    return [(place[first], place[later]) for later, first in _find_pairs(signatures)]


def _sign(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return the MinHash of every text (texts, permutations)."""
    from datasketch import MinHash

    found = np.empty((len(texts), PERMUTATIONS), np.uint32)
    hashed = MinHash.generator(map(_shingle, texts), num_perm=PERMUTATIONS, seed=SEED)
    for row, one in enumerate(hashed):
        found[row] = one.hashvalues
    return found


def _find_pairs(signatures: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Yield the numbers of near texts, the later one first, in order.

    Texts are compared that agree in all permutations of a band, in bands as `MinHashLSH` has them.
    """
    from datasketch import MinHashLSH

    bands = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
    split = [signatures[:, band * bands.r : (band + 1) * bands.r] for band in range(bands.b)]
    candidates = np.unique(np.concatenate([_find_alike(band) for band in split]), axis=0)
    for begin in range(0, len(candidates), PAIRS_AT_ONCE):
        pairs = candidates[begin : begin + PAIRS_AT_ONCE]
        same = signatures[pairs[:, 0]] == signatures[pairs[:, 1]]
        yield from pairs[same.mean(axis=1) >= NEAR].tolist()


def _find_alike(band: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the pairs (pairs, 2) of rows that are equal, the later one first."""
    factors = np.random.default_rng(SEED).integers(2**63, size=band.shape[1:], dtype=np.uint64)
    keys = np.zeros(len(band), np.uint64)
    for column in range(band.shape[1]):  # a sum modulo 2⁶⁴ stands for the whole band
        keys += band[:, column] * (2 * factors[column] + np.uint64(1))
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] + 1))
    sizes = np.diff(starts, append=len(order))
    pairs = [np.empty((0, 2), np.int64)]
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        later, first = np.tril_indices(size, -1)
        pairs.append(order[start + np.column_stack([later, first])])
    return np.concatenate(pairs)


def _shingle(text: str) -> set[bytes]:
    words = WORD.findall(text.lower()) or [text]
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return {" ".join(words[start : start + SHINGLE_WORDS]).encode() for start in starts}
