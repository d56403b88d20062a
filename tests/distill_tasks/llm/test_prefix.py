import torch
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.llm.prefix import SharedPrefix, find_common

prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=6)


@given(prompts)
def test_the_longest_common_beginning_leaves_every_prompt_a_token(prompts):
    common = find_common(prompts)
    length = len(common)
    assert all(prompt[:length] == common and len(prompt) > length for prompt in prompts)
    longer = {tuple(prompt[: length + 1]) for prompt in prompts}
    assert len(longer) > 1 or any(len(prompt) == length + 1 for prompt in prompts)


def test_what_was_read_once_is_never_changed(tiny_causal_model):
    prefix = SharedPrefix(tiny_causal_model, [5, 6, 7])
    before = [layer.keys.clone() for layer in prefix.cache.layers]
    with torch.inference_mode():
        tiny_causal_model(
            input_ids=torch.tensor([[8], [9]]), past_key_values=prefix.cache, use_cache=True
        )
    assert prefix.cache.get_seq_length() == 3
    assert all(
        torch.equal(layer.keys, keys)
        for layer, keys in zip(prefix.cache.layers, before, strict=True)
    )
    assert prefix.begins([5, 6, 7, 8])
    assert not prefix.begins([5, 6, 7])
