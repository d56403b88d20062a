"""Near repeats: different texts that share most of their word triples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_tasks.core.digests import digest, digest_texts

if TYPE_CHECKING:
    from datasketch import MinHash

    from distill_tasks.core.store import Store
    from distill_tasks.data.corpus import Corpus

WORD = re.compile(r"\w+")
SHINGLE_WORDS = 3
PERMUTATIONS = 128
NEAR = 0.8
"""Jaccard similarity of word triples from which two texts are near duplicates."""
SEED = 1

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

    Of equal texts only the first one is compared.
    """
    places: dict[str, Place] = {}
    for name, split in corpus.splits.items():
        for row, text in enumerate(split.texts):
            places.setdefault(text, (name, row))
    found = NearIndex().add({place: text for text, place in places.items()})
    return [(other, place) for place, near in found for other in near]


def _shingle(text: str) -> set[bytes]:
    words = WORD.findall(text.lower()) or [text]
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return {" ".join(words[start : start + SHINGLE_WORDS]).encode() for start in starts}
