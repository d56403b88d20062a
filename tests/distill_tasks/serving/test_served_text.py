"""A long text is cut before it is tokenised, where that cannot change the tokens that are read."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from distill_tasks.serving import served_text
from distill_tasks.serving.served_text import bound, read_ids, reads_words, shorten

PIECES = [
    *("the", "parcel", "was", "billed twice", "it's", "don't", "LATE", "Straße", "ﬁn", "Σίσυφος"),
    *(
        "e\u0301",
        "\u0301",
        "한국",
        "日本語の文",
        "😀",
        "👩‍👩‍👧",
        "\u0600",
        "1234567",
        "3.14",
        "!!!",
        "''",
        "``",
    ),
    *(" ", "  ", "    ", "\n", "\r\n\r\n", "\t", "\u00a0", "\u2003", "\x00", "\x1c", "\u200d", "▁"),
    *("[MASK]", "<mask>", "</s>", "x" * 130, "ab" * 40),
]
CORPUS = [" ".join(PIECES[start:] + PIECES[:start]) for start in range(len(PIECES))]


def train(model, trainer, normalizer, pre_tokenizer, added=()):
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(list(added))
    return tokenizer


def make_bert():
    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = train(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False),
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer


def make_bytes(pre_tokenizer, normalizer=None):
    return train(
        models.BPE(),
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>", "</s>"],
            show_progress=False,
        ),
        normalizer,
        pre_tokenizer,
        [AddedToken("<mask>", lstrip=True, rstrip=True)],
    )


def make_unigram(pre_tokenizer):
    steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    return train(
        models.Unigram(),
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
        ),
        normalizers.Sequence(steps),
        pre_tokenizer,
    )


def make_llama():
    """BPE over the whole text, in which a space is a character like any other."""
    tokenizer = train(
        models.BPE(unk_token="<unk>"),
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False),
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
    )
    tokenizer.decoder = decoders.Replace("▁", " ")
    return tokenizer


def qwen_words():
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


MADE = {
    "bert": make_bert,
    "gpt2": lambda: make_bytes(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "roberta": lambda: make_bytes(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "qwen": lambda: make_bytes(qwen_words(), normalizers.NFC()),
    "xlm-roberta": lambda: make_unigram(pre_tokenizers.Metaspace()),
    "t5": lambda: make_unigram(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    ),
    "first": lambda: make_unigram(pre_tokenizers.Metaspace(prepend_scheme="first")),
}
UNSURE = {
    "llama": make_llama,
    "unsplit": lambda: make_unigram(pre_tokenizers.Metaspace(split=False)),
    "no words": lambda: make_bytes(pre_tokenizers.ByteLevel(use_regex=False)),
    "other words": lambda: make_bytes(pre_tokenizers.Split(Regex(r"\S+(?=[\s\S]*z)"), "isolated")),
}


@pytest.fixture(scope="module", params=MADE)
def wordwise(request):
    return MADE[request.param]()


long_texts = st.lists(
    st.sampled_from(PIECES) | st.text(max_size=12) | st.sampled_from(PIECES).map(lambda p: p * 30),
    min_size=1,
    max_size=60,
).flatmap(
    lambda parts: st.sampled_from(["", " ", "  ", "\n"]).map(lambda glue: glue.join(parts * 4))
)


@settings(deadline=None, max_examples=60)
@given(
    text=long_texts,
    max_length=st.integers(3, 20),
    side=st.sampled_from(["left", "right"]),
    special_tokens=st.booleans(),
)
def test_what_is_read_is_what_is_read_of_the_whole_text(
    wordwise, text, max_length, side, special_tokens
):
    bound(wordwise, max_length, side)
    whole = wordwise.encode(text, add_special_tokens=special_tokens).ids
    assert read_ids(wordwise, [text], special_tokens) == [whole]


@pytest.mark.parametrize("side", ["left", "right"])
def test_of_a_long_text_a_part_is_tokenised(wordwise, side):
    bound(wordwise, 16, side)
    text = " ".join(f"the parcel was late {number}" for number in range(5_000))
    part = shorten(wordwise, text)
    assert len(part) < 1_500
    assert text.endswith(part) if side == "left" else text.startswith(part)


def test_where_the_beginning_is_empty_more_is_read(wordwise):
    bound(wordwise, 16, "right")
    text = " \n" * 5_000 + " ".join(["the parcel was late"] * 500)
    whole = wordwise.encode(text).ids
    assert read_ids(wordwise, [text], special_tokens=True) == [whole]


@pytest.mark.parametrize("name", UNSURE)
def test_a_tokenizer_that_may_look_further_reads_the_whole_text(name):
    unsure = UNSURE[name]()
    bound(unsure, 16, "right")
    text = "the parcel was late " * 100
    assert not reads_words(unsure)
    assert shorten(unsure, text) is text


def test_a_token_with_a_space_inside_makes_it_unsure():
    tokenizer = make_bert()
    assert reads_words(tokenizer)
    tokenizer.add_tokens(["parcel service"])
    assert not reads_words(tokenizer)


def test_a_short_text_is_left_alone(wordwise):
    bound(wordwise, 16, "right")
    text = "the parcel was late " * 12
    assert shorten(wordwise, text) is text


HUGE = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from tokenizers import Tokenizer
from served_text import bound, read_ids

tokenizer = Tokenizer.from_file(sys.argv[1])
bound(tokenizer, 64, sys.argv[3])
text = "the parcel was billed twice " * 400_000
usage = lambda: resource.getrusage(resource.RUSAGE_SELF)
before = usage()
(ids,) = read_ids(tokenizer, [text], True)
after = usage()
print(len(ids), after.ru_utime - before.ru_utime, after.ru_maxrss - before.ru_maxrss)
"""


@pytest.mark.parametrize("side", ["left", "right"])
def test_ten_megabytes_take_neither_seconds_nor_memory(tmp_path, side):
    """The whole text took 11 s of processor time and 1.4 GB."""
    make_bert().save(str(tmp_path / "tokenizer.json"))
    folder = served_text.__file__.rsplit("/", 1)[0]
    arguments = [str(tmp_path / "tokenizer.json"), folder, side]
    done = subprocess.run(
        [sys.executable, "-P", "-c", HUGE, *arguments], capture_output=True, text=True, check=True
    )
    ids, seconds, kilobytes = done.stdout.split()
    assert int(ids) == 64
    assert float(seconds) < 1
    assert int(kilobytes) < 50_000
