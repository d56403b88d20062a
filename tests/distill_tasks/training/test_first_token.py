import copy

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from distill_tasks.core.errors import InputError
from distill_tasks.training.first_token import find_layers, read_first_token

SIZES = {
    "vocab_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 1,
    "num_labels": 3,
}
WIDTHS = {"hidden_size": 16, "intermediate_size": 24}
READ_ONE = {
    "bert": WIDTHS,
    "roberta": WIDTHS,
    "electra": WIDTHS | {"embedding_size": 8},
}
OF_OTHER_BUILD = {
    "distilbert": {"dim": 16, "hidden_dim": 24},
    "deberta-v2": WIDTHS | {"relative_attention": True, "pos_att_type": "c2p|p2c"},
    "mpnet": WIDTHS,
    "albert": WIDTHS | {"embedding_size": 8},
    "roberta-prelayernorm": WIDTHS,
    "rembert": WIDTHS | {"input_embedding_size": 8, "output_embedding_size": 8},
    "convbert": WIDTHS | {"embedding_size": 8},
    "big_bird": WIDTHS,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
}


def make_ids(seed=0):
    """Token ids (6, 11) and their mask; every row but the first is padded, each more."""
    torch.manual_seed(seed)
    ids, mask = torch.randint(2, 40, (6, 11)), torch.ones(6, 11, dtype=torch.int64)
    for row in range(6):
        mask[row, 11 - 2 * row :] = 0
    return torch.where(mask == 1, ids, 1), mask


def shake(model, seed=0):
    """Give a model weights so large that every token matters to every other."""
    torch.manual_seed(seed)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def make(kind, attention="eager", **changes):
    config = AutoConfig.for_model(kind, **SIZES, **(READ_ONE | OF_OTHER_BUILD)[kind])
    for key, value in changes.items():
        setattr(config, key, value)
    return shake(
        AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    )


def answer(model, seed=0):
    """The logits of padded rows, and of rows without any padding."""
    ids, mask = make_ids(seed)
    return torch.cat([model(input_ids=ids, attention_mask=mask).logits, model(ids[:3]).logits])


def learn(model, problem="single_label"):
    """The gradients of a loss on padded rows, by the names of the weights."""
    ids, mask = make_ids()
    logits = model.train()(input_ids=ids, attention_mask=mask).logits
    gold = torch.arange(18).reshape(6, 3) % 5 % 2
    if problem == "multi_label":
        loss = functional.binary_cross_entropy_with_logits(logits, gold.float())
    else:
        loss = functional.cross_entropy(logits, gold.argmax(1))
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def count(model):
    """The tokens of each row for which the last layer answers."""
    counted = []
    last = model.get_submodule(find_layers(model))[-1]
    hook = last.register_forward_hook(lambda *given: counted.append(given[-1].shape[1]))
    answer(model)
    hook.remove()
    return set(counted)


def all_attentions(kinds):
    return pytest.mark.parametrize(
        ("kind", "attention"), [(kind, name) for kind in kinds for name in ("eager", "sdpa")]
    )


@all_attentions(READ_ONE)
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_logits_stay_the_same_and_the_last_layer_answers_for_one_token(kind, attention, seed):
    model = make(kind, attention)
    plain = answer(model, seed)
    assert count(model) == {11}
    assert read_first_token(model)
    assert count(model) == {1}
    torch.testing.assert_close(answer(model, seed), plain, rtol=0, atol=1e-5)


@all_attentions(READ_ONE)
@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_gradients_stay_the_same(kind, attention, problem):
    config = make(kind).config
    for key in [key for key in config.to_dict() if "dropout" in key]:
        setattr(config, key, 0.0)
    model = shake(
        AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    )
    plain = learn(model, problem)
    assert read_first_token(model)
    found = learn(model, problem)
    assert max(float(grad.abs().max()) for grad in plain.values()) > 0.01
    for name, grad in plain.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", OF_OTHER_BUILD)
@torch.no_grad()
def test_a_model_of_another_build_is_left_as_it_was(kind):
    model = make(kind)
    plain, kinds = answer(model), [type(module) for module in model.modules()]
    assert not read_first_token(model)
    assert torch.equal(answer(model), plain)
    assert [type(module) for module in model.modules()] == kinds


class MeanOfTokens(BertForSequenceClassification):
    def forward(self, input_ids, attention_mask=None):
        states = self.bert(input_ids, attention_mask).last_hidden_state
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return SequenceClassifierOutput(logits=self.classifier(mean))


class LastToken(BertForSequenceClassification):
    def forward(self, input_ids, attention_mask=None):
        states = self.bert(input_ids, attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(states[:, input_ids.shape[1] - 1]))


class OneLayerTwice(BertForSequenceClassification):
    def __init__(self, config):
        super().__init__(config)
        self.bert.encoder.layer[1] = self.bert.encoder.layer[0]


@pytest.mark.parametrize("build", [MeanOfTokens, LastToken, OneLayerTwice])
@pytest.mark.parametrize("scale", [1, 1e-6])
@torch.no_grad()
def test_a_bert_that_needs_its_other_tokens_is_left_as_it_was(build, scale):
    model = shake(build(BertConfig(**SIZES, **WIDTHS)))
    model.classifier.weight *= scale  # small logits are no reason to think that nothing changed
    plain = answer(model)
    assert not read_first_token(model)
    assert torch.equal(answer(model), plain)
    assert count(model) == {11}


@torch.no_grad()
def test_a_bert_that_reads_forwards_only_answers_as_before():
    model = make("bert", "sdpa", is_decoder=True)
    plain = answer(model)
    read_first_token(model)
    torch.testing.assert_close(answer(model), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", READ_ONE)
@torch.no_grad()
def test_a_model_in_16_bits_with_sharp_answers_is_read_so_too(kind):
    model = make(kind, "sdpa").bfloat16()
    head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    head.weight *= 20
    plain = answer(model)
    assert plain.abs().max() > 8
    assert read_first_token(model)
    assert count(model) == {1}
    torch.testing.assert_close(answer(model), plain, rtol=0, atol=0.03 * plain.abs().max().item())


@torch.no_grad()
def test_saved_and_opened_again_it_is_the_plain_model(tmp_path):
    model = make("bert")
    plain = answer(model)
    model.save_pretrained(tmp_path / "plain")
    read_first_token(model)
    model.save_pretrained(tmp_path / "read")
    files = {path.name for path in (tmp_path / "plain").iterdir()}
    assert files == {"config.json", "model.safetensors"}
    for name in files:
        assert (tmp_path / "read" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "read").eval()
    assert count(again) == {11}
    torch.testing.assert_close(answer(again), plain, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_copy_answers_by_its_own_weights():
    model = make("bert")
    read_first_token(model)
    other = shake(copy.deepcopy(model), seed=1)
    plain = shake(make("bert"), seed=1)
    assert count(other) == {1}
    torch.testing.assert_close(answer(other), answer(plain), rtol=0, atol=1e-5)


@torch.no_grad()
def test_twice_is_as_once():
    model = make("bert")
    plain = answer(model)
    assert read_first_token(model)
    assert read_first_token(model)
    torch.testing.assert_close(answer(model), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_mode_gradients_and_random_numbers_are_left_alone(kind, training):
    model = make(kind).train(training)
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    read_first_token(model)
    assert torch.equal(torch.rand(3), expected)
    assert {module.training for module in model.modules()} == {training}
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("kind", READ_ONE)
@pytest.mark.parametrize("words", [2, 3, 7])
@torch.no_grad()
def test_few_words_and_positions_are_enough_to_try(kind, words):
    model = make(kind)
    small = type(model.config)(**{**model.config.to_dict(), "vocab_size": words})
    few = shake(type(model)(small))
    ids = torch.arange(words).repeat(2, 2)
    plain = few(ids).logits
    assert read_first_token(few)
    torch.testing.assert_close(few(ids).logits, plain, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_model_too_short_to_try_is_left_as_it_was():
    config = AutoConfig.for_model("roberta", **{**SIZES, "max_position_embeddings": 6}, **WIDTHS)
    model = shake(AutoModelForSequenceClassification.from_config(config)).train()
    assert not read_first_token(model)
    assert model.training
    assert model(torch.tensor([[5, 6, 7, 8]])).logits.shape == (1, 3)


@torch.no_grad()
def test_padding_inside_a_row_has_roberta_s_position_for_it():
    model = make("roberta")
    ids = torch.tensor([[0, 5, 1, 7, 1, 1, 9], [1, 1, 1, 6, 7, 8, 2]])
    mask = (ids != 1).long()
    plain = model(input_ids=ids, attention_mask=mask).logits
    assert read_first_token(model)
    found = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)


def test_the_list_of_layers_is_found_by_its_length_or_refused():
    assert find_layers(make("bert")) == "bert.encoder.layer"
    assert find_layers(make("distilbert")) == "distilbert.transformer.layer"
    with pytest.raises(InputError, match=r"AlbertFor.* has no list of 2 layers to copy from\. Use"):
        find_layers(make("albert"))
