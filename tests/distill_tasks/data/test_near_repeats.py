import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.near_repeats import NearIndex, find_near_repeats

WORDS = [f"w{number}" for number in range(40)]


def make_corpus(texts, cut):
    splits = {"train": texts[:cut], "transfer": texts[cut:]}
    return Corpus(
        {name: Split(tuple(rows), np.full(len(rows), -1)) for name, rows in splits.items()}, ("a",)
    )


def find_one_by_one(corpus):
    """The same by the index of datasketch, a text at a time."""
    places = {}
    for name, split in corpus.splits.items():
        for row, text in enumerate(split.texts):
            places.setdefault(text, (name, row))
    found = NearIndex().add({place: text for text, place in places.items()})
    return sorted((other, place) for place, near in found for other in near)


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), min_size=1, max_size=12),
    st.data(),
)
def test_sorting_finds_what_the_index_finds(sentences, data):
    texts = [" ".join(words) for words in sentences]
    for _ in range(data.draw(st.integers(0, 6))):  # one word more, or one taken out
        words = data.draw(st.sampled_from(texts)).split()
        place = data.draw(st.integers(0, len(words) - 1))
        texts.append(
            " ".join(
                words[:place]
                + ["x"] * data.draw(st.integers(int(len(words) == 1), 1))
                + words[place + 1 :]
            )
        )
    corpus = make_corpus(texts, data.draw(st.integers(0, len(texts))))
    assert sorted(find_near_repeats(corpus)) == find_one_by_one(corpus)


def test_near_texts_are_paired_across_splits_and_equal_ones_are_not():
    long = " ".join(WORDS)
    corpus = make_corpus([long, "other words here", long + " more", long], 2)
    assert find_near_repeats(corpus) == [(("train", 0), ("transfer", 0))]
