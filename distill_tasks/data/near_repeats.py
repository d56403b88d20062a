"""Near repeats: different texts that share most of their word triples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill_tasks.data.corpus import Corpus

WORD = re.compile(r"\w+")
SHINGLE_WORDS = 3
PERMUTATIONS = 128
NEAR = 0.8
"""Jaccard similarity of word triples from which two texts are near duplicates."""
SEED = 1

Place = tuple[str, int]
"""A split and a row number in it."""


def find_near_repeats(corpus: Corpus) -> list[tuple[Place, Place]]:
    """Return pairs of different texts that share most of their word triples, by MinHash.

    Of equal texts only the first one is compared. Source: Broder 1997, "On the resemblance and
    containment of documents".
    """
    from datasketch import MinHash, MinHashLSH

    places: dict[str, Place] = {}
    for name, split in corpus.splits.items():
        for row, text in enumerate(split.texts):
            places.setdefault(text, (name, row))
    hashes = dict(
        zip(
            places.values(),
            MinHash.bulk(map(_shingle, places), num_perm=PERMUTATIONS, seed=SEED),
            strict=True,
        )
    )
    index = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
    pairs = []
    for place, signature in hashes.items():
        similar = {other: signature.jaccard(hashes[other]) for other in index.query(signature)}
        pairs += [(other, place) for other, share in similar.items() if share >= NEAR]
        index.insert(place, signature)
    return pairs


def _shingle(text: str) -> set[bytes]:
    words = WORD.findall(text.lower()) or [text]
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return {" ".join(words[start : start + SHINGLE_WORDS]).encode() for start in starts}
