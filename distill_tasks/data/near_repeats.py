"""Near repeats: different texts that share most of their word triples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasketch import MinHash

    from distill_tasks.data.corpus import Corpus

WORD = re.compile(r"\w+")
SHINGLE_WORDS = 3
PERMUTATIONS = 128
NEAR = 0.8
"""Jaccard similarity of word triples from which two texts are near duplicates."""
SEED = 1

Place = tuple[str, int]
"""A split and a row number in it."""


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
