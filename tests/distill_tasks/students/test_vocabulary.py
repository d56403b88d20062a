import string

import pytest
import torch
import transformers
from builders import refuse_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import CLASSES
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from distill_tasks.students.layers import copy_layers
from distill_tasks.students.vocabulary import find_tokens, keep_embeddings, keep_pieces
from distill_tasks.training.checkpoint import Checkpoint


@torch.inference_mode()
def say(model, probe):
    return model.eval()(**probe).logits


PIECES = [
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *string.ascii_lowercase,
    *(f"##{letter}" for letter in string.ascii_lowercase),
    *("the", "pup", "##py", "kit", "##ten", "##s", "bark", "##ing", "puppy", "##ppy", "fi", "##sh"),
]


def make_tokenizer(post_processor=None):
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(PIECES))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    backend.post_processor = {
        None: processors.BertProcessing(ends[1], ends[0]),
        "template": processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends),
        "sequence": processors.Sequence(
            [processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)]
        ),
    }[post_processor]
    names = ("pad", "unk", "cls", "sep", "mask")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{name}_token": f"[{name.upper()}]" for name in names}
    )


words = st.lists(st.sampled_from(["the", "puppy", "pups", "kittens", "barking", "fish", "é", "q"]))


@given(words.map(" ".join), st.sampled_from([None, "template", "sequence"]))
@settings(max_examples=25, deadline=None)
def test_texts_of_the_corpus_are_cut_into_the_same_pieces(text, post_processor):
    tokenizer = make_tokenizer(post_processor)
    kept = find_tokens(tokenizer, [text])
    smaller = keep_pieces(tokenizer, kept)
    ids = tokenizer(text)["input_ids"]
    assert smaller.convert_ids_to_tokens(smaller(text)["input_ids"]) == [
        tokenizer.convert_ids_to_tokens(number) for number in ids
    ]
    assert [kept[number] for number in smaller(text)["input_ids"]] == ids


def test_of_the_vocabulary_the_corpus_special_tokens_and_characters_stay():
    tokenizer = make_tokenizer()
    smaller = keep_pieces(tokenizer, find_tokens(tokenizer, ["the puppy", "fish"]))
    assert set(smaller.get_vocab()) == {
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "puppy", "fi", "##sh"),
        *string.ascii_lowercase,
        *(f"##{letter}" for letter in string.ascii_lowercase),
    }
    assert sorted(smaller.get_vocab().values()) == list(range(len(smaller)))
    assert smaller.tokenize("the kit") == ["the", "k", "##i", "##t"]
    assert (smaller.pad_token_id, smaller.unk_token_id, smaller.cls_token_id) == (0, 1, 2)


def test_logits_on_the_corpus_stay_the_same_with_fewer_tokens(tiny_base):
    few = ["the puppy likes the house", "purr and meow"]
    model = copy_layers(Checkpoint(tiny_base, None, 16), 2, CLASSES)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
    before = say(model, dict(tokenizer(few, padding=True, return_tensors="pt")))
    kept = find_tokens(tokenizer, few)
    smaller = keep_pieces(tokenizer, kept)
    keep_embeddings(model, kept)
    after = say(model, dict(smaller(few, padding=True, return_tensors="pt")))
    assert torch.equal(before, after)
    vocabulary = 5 + len({word for text in few for word in text.split()}) + 1  # and the word "a"
    assert model.config.vocab_size == len(smaller) == vocabulary
    assert model.get_input_embeddings().weight.shape == (vocabulary, 32)
    assert model.config.pad_token_id == smaller.pad_token_id == 0


# Trained


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_a_vocabulary_of_merges_or_scores_is_not_cut(written, copied_base, kind):
    letters = ["<unk>", *string.ascii_lowercase]
    model = {
        "BPE": models.BPE({letter: n for n, letter in enumerate(letters)}, [], unk_token="<unk>"),
        "Unigram": models.Unigram([(letter, -1.0) for letter in letters], 0, False),
    }[kind]
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (copied_base / name).unlink()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(model), pad_token="<unk>", unk_token="<unk>"
    ).save_pretrained(copied_base)
    written["teacher"]["base"] = str(copied_base)
    said = refuse_layers(written, vocabulary="corpus")
    assert said.startswith(
        f"students.vocabulary corpus needs a WordPiece tokenizer; the teacher's is {kind}"
    )
