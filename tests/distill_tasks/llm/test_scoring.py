import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_models import VOCABULARY, make_causal_model

from distill_tasks.core.errors import InputError
from distill_tasks.llm import scoring
from distill_tasks.llm.scoring import LabelScorer, score_plainly

END = 1
SINGLE = [(10,), (12,), (11,)]
SEVERAL = [(10,), (10, 11), (12, 13, 14), (12, 13, 15), (12, 16), (17, 10, 11, 12)]
token = st.integers(2, VOCABULARY - 1)
prompts = st.lists(st.lists(token, min_size=1, max_size=30), min_size=1, max_size=6)
labels = st.lists(
    st.lists(st.integers(2, 5), min_size=1, max_size=4), min_size=2, max_size=8, unique_by=tuple
)


def draw_prompts(shared=12, count=9, seed=0):
    """Return prompts of several lengths that begin alike."""
    generator = np.random.default_rng(seed)
    beginning = generator.integers(2, VOCABULARY, shared).tolist()
    lengths = generator.integers(1, 40, count)
    return [beginning + generator.integers(2, VOCABULARY, length).tolist() for length in lengths]


def score_each(model, prompts, labels):
    """Return log-probabilities (rows, classes), every label of every prompt read for itself."""
    closed = LabelScorer(model, labels, END).trie.labels
    return np.array(
        [[score_plainly(model, prompt, closed, label) for label in closed] for prompt in prompts]
    )


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("gpt2", {}),
        ("gpt_neox", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 8}),
        (
            "gemma3_text",
            {"sliding_window": 8, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
        ),
        ("phi3", {"sliding_window": None}),
    ],
)
def test_one_pass_scores_like_a_pass_for_each_label(kind, settings, labels):
    model, prompts = make_causal_model(kind, **settings), draw_prompts()
    scores = LabelScorer(model, labels, END).score(prompts)
    each = score_each(model, prompts, labels)
    np.testing.assert_allclose(scores.log_probabilities, each, atol=1e-4)
    assert np.ptp(each, axis=0).min() > 0.1


@settings(max_examples=30)
@given(prompts=prompts, labels=labels)
def test_any_prompts_and_labels_are_scored_like_alone(tiny_causal_model, prompts, labels):
    scores = LabelScorer(tiny_causal_model, labels, END).score(prompts)
    each = score_each(tiny_causal_model, prompts, labels)
    np.testing.assert_allclose(scores.log_probabilities, each, atol=1e-4)
    np.testing.assert_allclose(np.exp(scores.log_probabilities).sum(1), 1, rtol=1e-5)


def test_mass_off_the_labels_is_what_their_first_tokens_lack(tiny_causal_model):
    prompts = draw_prompts()
    scores = LabelScorer(tiny_causal_model, SEVERAL, END).score(prompts)
    with torch.inference_mode():
        chances = [
            tiny_causal_model(torch.tensor([prompt])).logits[0, -1].softmax(-1)[[10, 12, 17]]
            for prompt in prompts
        ]
    np.testing.assert_allclose(scores.off_labels, [1 - part.sum() for part in chances], atol=1e-5)


def test_rows_are_scored_alike_in_any_batch(tiny_causal_model, monkeypatch):
    prompts = draw_prompts()
    together = LabelScorer(tiny_causal_model, SEVERAL, END).score(prompts)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 100)
    scorer = LabelScorer(tiny_causal_model, SEVERAL, END)
    np.testing.assert_allclose(
        scorer.score(prompts).log_probabilities, together.log_probabilities, atol=1e-4
    )


def test_batches_grow_with_tokens_and_logits_and_hold_a_row_at_least(
    tiny_causal_model, monkeypatch
):
    scorer = LabelScorer(tiny_causal_model, SINGLE, END)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 100)
    assert list(scorer._part([200, 50, 50, 20, 20])) == [0, 1, 3, 5]
    monkeypatch.setattr(scoring, "BATCH_LOGITS", 2 * VOCABULARY)
    assert list(scorer._part([10, 10, 10])) == [0, 2, 3]


def test_the_beginning_is_read_once_for_all_that_share_it(tiny_causal_model):
    prompts = draw_prompts(count=20)
    scorer = LabelScorer(tiny_causal_model, SINGLE, END)
    scorer.score(prompts[:10])
    read = scorer.prefix
    scorer.score(prompts[10:])
    assert scorer.prefix is read
    scorer.score(draw_prompts(seed=1))
    assert scorer.prefix is not read


def test_a_model_without_attention_is_refused_in_one_line():
    model = make_causal_model("mamba", state_size=4, num_hidden_layers=2)
    with pytest.raises(InputError, match="A mamba model") as caught:
        LabelScorer(model, SEVERAL, END).score(draw_prompts())
    assert "\n" not in str(caught.value)
