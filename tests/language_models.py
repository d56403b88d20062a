"""Tiny random causal language models of several architectures."""

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

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
