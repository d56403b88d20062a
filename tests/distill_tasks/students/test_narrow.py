import json

import numpy as np
import pytest
import torch
import transformers
from builders import NARROW_STUDENT, refuse_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import CLASSES, make_rows
from sklearn.decomposition import TruncatedSVD

from distill_tasks.serving.served_model import open_model
from distill_tasks.students import LayersStudent
from distill_tasks.students.formats import export_variant
from distill_tasks.students.layers import copy_layers
from distill_tasks.students.narrow import NARROWED, main_directions, narrow, read_probe, strongest
from distill_tasks.students.vocabulary import find_tokens
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.first_token import find_layers
from distill_tasks.training.probe import probe

TEXTS = list(make_rows(40, seed=2)["text"])


# Which layers


EMBEDDING_SIZES = {"electra": 24, "electra-as-wide": 32}


@pytest.fixture(scope="module", params=[*NARROWED, "electra-as-wide"])
def wide(request):
    """A random classifier of one type, whose layers do something."""
    torch.manual_seed(2)
    own = EMBEDDING_SIZES.get(request.param)
    config = transformers.AutoConfig.for_model(
        "electra" if own else request.param,
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        num_labels=3,
        pad_token_id=1,
        **({"embedding_size": own} if own else {}),
    )
    model = transformers.AutoModelForSequenceClassification.from_config(
        config, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    return model


def make_probe(rows=24, tokens=12):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(4, 60, (rows, tokens), generator=generator)
    lengths = torch.randint(3, tokens + 1, (rows, 1), generator=generator)
    mask = (torch.arange(tokens) < lengths).long()
    return {"input_ids": torch.where(mask == 1, ids, 1), "attention_mask": mask}


@torch.inference_mode()
def say(model, probe):
    return model.eval()(**probe).logits


@pytest.mark.parametrize("sizes", [(None, None), (32, 64), (32, None), (None, 64)])
def test_as_wide_as_the_teacher_nothing_changes(wide, sizes):
    probe = make_probe()
    assert torch.equal(say(narrow(wide, *sizes, probe), probe), say(wide, probe))


@pytest.mark.parametrize(("width", "feed_forward"), [(16, 24), (8, None), (None, 8)])
def test_a_narrow_model_has_the_sizes_asked_for_and_heads_as_wide_as_before(
    wide, width, feed_forward
):
    small = narrow(wide, width, feed_forward, make_probe())
    width, feed_forward = width or 32, feed_forward or 64
    assert (small.config.hidden_size, small.config.intermediate_size) == (width, feed_forward)
    layer = small.get_submodule(find_layers(small))[-1]
    assert layer.attention.self.attention_head_size == 8
    assert layer.attention.self.num_attention_heads == width // 8
    assert layer.attention.self.query.weight.shape == (width, width)
    assert layer.output.dense.weight.shape == (width, feed_forward)
    again = type(small)(small.config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in small.state_dict().items()
    }


def watch(model, suffix, probe):
    """Return what enters and leaves each module whose name ends so, at real tokens."""
    seen, real = [], probe["attention_mask"].bool()
    hooks = [
        module.register_forward_hook(
            lambda _module, given, left: seen.append((given[0][real], left[real]))
        )
        for name, module in model.named_modules()
        if name.endswith(suffix)
    ]
    say(model, probe)
    for hook in hooks:
        hook.remove()
    return seen


def test_hidden_states_have_the_means_and_deviations_of_the_projected_ones(wide):
    probe = make_probe()
    theirs = [left for _, left in watch(wide, "LayerNorm", probe) if left.shape[1] == 32]
    ours = [left for _, left in watch(narrow(wide, 16, 40, probe), "LayerNorm", probe)]
    ours = ours[-len(theirs) :]  # ELECTRA's embeddings keep their own width
    basis = main_directions(theirs, 16)
    for full, small in zip(theirs, ours, strict=True):
        wanted = full @ basis
        torch.testing.assert_close(small.mean(0), wanted.mean(0), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(small.std(0), wanted.std(0), atol=1e-4, rtol=1e-3)


def test_every_matrix_is_the_teachers_between_the_same_directions_heads_and_units():
    """A second implementation, of one BERT: plain numpy, one matrix after the other."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=3,
    )
    full = transformers.BertForSequenceClassification(config).eval()
    probe = make_probe()
    small = narrow(full, 16, 20, probe)
    basis = main_directions([left for _, left in watch(full, "LayerNorm", probe)], 16).numpy()
    old, new = ({k: v.numpy() for k, v in m.state_dict().items()} for m in (full, small))
    layer = "bert.encoder.layer.0."

    def rows(into, out, kept, size=1):
        into, out = old[into], old[out]
        norms = [
            np.linalg.norm(into[at : at + size]) * np.linalg.norm(out[:, at : at + size])
            for at in range(0, len(into), size)
        ]
        groups = np.sort(np.argsort(norms)[::-1][:kept])
        return np.concatenate([np.arange(at * size, at * size + size) for at in groups])

    value, output = f"{layer}attention.self.value.weight", f"{layer}attention.output.dense.weight"
    into, out = f"{layer}intermediate.dense.weight", f"{layer}output.dense.weight"
    heads, inner = rows(value, output, 2, 8), rows(into, out, 20)
    head = rows("bert.pooler.dense.weight", "classifier.weight", 16)
    expected = {
        "bert.embeddings.word_embeddings.weight": lambda w: w @ basis,
        "bert.embeddings.position_embeddings.weight": lambda w: w @ basis,
        "bert.embeddings.token_type_embeddings.weight": lambda w: w @ basis,
        f"{layer}attention.self.query.weight": lambda w: w[heads] @ basis,
        f"{layer}attention.self.key.weight": lambda w: w[heads] @ basis,
        f"{layer}attention.self.key.bias": lambda b: b[heads],
        value: lambda w: w[heads] @ basis,
        output: lambda w: basis.T @ w[:, heads],
        f"{layer}attention.output.dense.bias": lambda b: b @ basis,
        into: lambda w: w[inner] @ basis,
        f"{layer}intermediate.dense.bias": lambda b: b[inner],
        out: lambda w: basis.T @ w[:, inner],
        "bert.pooler.dense.weight": lambda w: w[head] @ basis,
        "bert.pooler.dense.bias": lambda b: b[head],
        "classifier.weight": lambda w: w[:, head],
        "classifier.bias": lambda b: b,
    }
    for name, make in expected.items():
        np.testing.assert_allclose(new[name], make(old[name]), atol=1e-5, err_msg=name)


def test_units_that_say_nothing_are_the_first_to_go(wide):
    model, probe = wide, make_probe()
    with torch.no_grad():
        for layer in model.get_submodule(find_layers(model)):
            layer.output.dense.weight[:, ::2] = 0
    small = narrow(model, None, 32, probe)
    torch.testing.assert_close(say(small, probe), say(model, probe), atol=1e-4, rtol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=30)
def test_main_directions_are_orthonormal_and_keep_the_most(seed, width):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(50, 12, generator=generator) * torch.arange(1, 13)
    basis = main_directions([states[:20], states[20:]], width)
    torch.testing.assert_close(basis.T @ basis, torch.eye(width), atol=1e-5, rtol=0)
    kept = float((states @ basis).pow(2).sum() / states.pow(2).sum())
    if width == 12:
        assert torch.equal(basis, torch.eye(12))
    else:
        plain = TruncatedSVD(width, algorithm="arpack").fit(states.double().numpy())
        best = (plain.singular_values_**2).sum() / (states.double() ** 2).sum()
        assert kept == pytest.approx(float(best), rel=1e-4)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_no_group_that_goes_is_stronger_than_one_that_stays(kept, size, seed):
    generator = np.random.default_rng(seed)
    into, out = generator.normal(size=(4 * size, 5)), generator.normal(size=(3, 4 * size))
    matrix = strongest(torch.from_numpy(into), torch.from_numpy(out), kept, size).numpy()
    assert matrix.shape == (4 * size, kept * size)
    assert (matrix.sum(axis=0) == 1).all()
    stays = matrix.sum(axis=1).reshape(4, size)
    assert (stays.min(axis=1) == stays.max(axis=1)).all()
    strength = [
        np.linalg.norm(into[at : at + size]) * np.linalg.norm(out[:, at : at + size])
        for at in range(0, 4 * size, size)
    ]
    goes = [strength[number] for number in range(4) if not stays[number, 0]]
    assert all(g <= min(strength[n] for n in range(4) if stays[n, 0]) for g in goes)
    assert np.array_equal(matrix.argmax(axis=0), np.sort(matrix.argmax(axis=0)))


def test_the_probe_is_read_from_all_over_the_lesson(tiny_base):
    texts = [*["the"] * 3000, *["puppy"] * 3000]
    probe = read_probe(Checkpoint(tiny_base, None, 16), texts)
    assert probe["input_ids"].shape == (8192 // 16, 3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
    words = tokenizer.convert_ids_to_tokens(probe["input_ids"][:, 1].tolist())
    assert words == ["the"] * 256 + ["puppy"] * 256
    assert len(read_probe(Checkpoint(tiny_base, None, 16), texts[:5])["input_ids"]) == 5


# Fewer tokens


words = st.lists(st.sampled_from(["the", "puppy", "pups", "kittens", "barking", "fish", "é", "q"]))


def test_words_behind_the_last_token_that_is_read_count_as_of_the_corpus(tiny_base):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
    tokenizer(["the house"], truncation=True, max_length=3)  # leaves the backend cutting
    tokens = tokenizer.convert_ids_to_tokens(find_tokens(tokenizer, ["the house very much"]))
    assert {"the", "house", "very", "much"} <= set(tokens)


@pytest.fixture(scope="module")
def trained(training_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow")
    return folder, NARROW_STUDENT.train(training_set, folder)


def test_a_narrow_student_learns_what_the_teacher_says(trained):
    folder, curve = trained
    rows = make_rows(90, seed=8)
    said = open_model(folder).logits(rows["text"].tolist()).argmax(axis=1)
    assert np.mean(np.array(CLASSES)[said] == rows["label"]) > 0.8
    assert len(curve) == 12


def test_a_narrow_student_is_a_plain_model_of_its_own_sizes_and_tokens(trained):
    folder, _ = trained
    config = json.loads((folder / "config.json").read_text())
    sizes = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    assert [config[key] for key in sizes] == [2, 16, 1, 32]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    used = {word for text in make_rows(160, seed=3)["text"] for word in text.split()}
    assert {*used, "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} == set(tokenizer.get_vocab())
    assert config["vocab_size"] == len(tokenizer)


def test_the_less_is_cut_the_nearer_a_student_starts_to_the_teacher(teacher, training_set):
    probe = read_probe(teacher, training_set.rows.texts)
    full = copy_layers(teacher, 4, CLASSES)
    before = say(full, probe)
    gaps = [
        float((say(narrow(full, width, units, probe), probe) - before).pow(2).mean())
        for width, units in ((None, 60), (None, 20), (16, 20))
    ]
    assert 0 < gaps[0] < gaps[1] < gaps[2]


def test_a_narrow_student_with_its_own_tokens_is_exported(trained, tmp_path):
    folder, _ = trained
    export_variant(folder, "onnx", None, [], tmp_path)
    texts = [*TEXTS, "", "words that nobody knows"]
    theirs = open_model(folder).logits(texts)
    assert np.ptp(theirs, axis=0).min() > 0.1
    np.testing.assert_allclose(open_model(tmp_path).logits(texts), theirs, atol=1e-4)


# Refused before any work


def test_a_teacher_of_unknown_build_is_not_narrowed(written, copied_base):
    config = transformers.DistilBertConfig(
        vocab_size=60, dim=16, hidden_dim=32, n_layers=2, n_heads=2, num_labels=3
    )
    transformers.DistilBertForSequenceClassification(config).save_pretrained(copied_base)
    written["teacher"]["base"] = str(copied_base)
    assert "type distilbert cannot be narrowed, only bert" in refuse_layers(written, width=8)
    teacher = Checkpoint(copied_base, None, 16)
    opened = probe(teacher, "teacher.max_length", ready=True)
    LayersStudent.check_teacher([LayersStudent(layers=2)], *opened, ["kl"])


def test_electra_as_wide_as_its_embeddings_is_refused(written, copied_base):
    config = transformers.ElectraConfig(
        vocab_size=60,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
    )
    transformers.ElectraForSequenceClassification(config).save_pretrained(copied_base)
    written["teacher"]["base"] = str(copied_base)
    assert "students.width is 16, as wide as the teacher's embeddings" in refuse_layers(
        written, width=16
    )
