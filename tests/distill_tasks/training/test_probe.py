"""Whatever a pretrained model only seems to be is found in `check`, in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from samples import CLASSES, make_gold_set, make_rows
from tokenizers import processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.data.settings import RowFormat
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.prepare import check_config
from distill_tasks.students import LayersStudent, StaticStudent
from distill_tasks.students.layers import copy_layers
from distill_tasks.teachers.sequence_classifier import TransformersTeacher
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.probe import check_reading, probe

TEXTS = list(make_rows(40, seed=2)["text"])
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "num_labels": 3,
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: number for number, name in enumerate(CLASSES)},
    "pad_token_id": 0,
}
BUILDS = {
    "albert": transformers.AlbertConfig(**SIZES, num_hidden_layers=4, embedding_size=16),
    "modernbert": transformers.ModernBertConfig(
        **SIZES,
        num_hidden_layers=4,
        local_attention=8,
        bos_token_id=2,
        cls_token_id=2,
        eos_token_id=3,
        sep_token_id=3,
    ),
    "qwen2": transformers.Qwen2Config(
        **SIZES, num_hidden_layers=4, num_key_value_heads=2, bos_token_id=2, eos_token_id=3
    ),
    "roberta": transformers.RobertaConfig(
        **SIZES | {"max_position_embeddings": 66, "pad_token_id": 1}, num_hidden_layers=2
    ),
}


def save_model(folder, config, base):
    """Write a random classifier whose layers do something, with the tokenizer of another one."""
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    model.save_pretrained(folder)
    return Checkpoint(folder, None, 16)


@pytest.fixture
def build(tiny_base, tmp_path):
    return lambda name: save_model(tmp_path / name, BUILDS[name], tiny_base)


def look(folder, max_length=16, ready=True):
    return probe(Checkpoint(folder, None, max_length), "teacher.max_length", ready)


def refusal(folder, max_length=16, ready=True):
    with pytest.raises(InputError) as caught:
        look(folder, max_length, ready)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


# Heads and classes


def test_a_teacher_without_a_head_is_refused_and_a_base_needs_none(copied_base):
    AutoModelForSequenceClassification.from_pretrained(copied_base).bert.save_pretrained(
        copied_base
    )
    assert "has no head among its weights (classifier.bias, classifier.weight)" in refusal(
        copied_base
    )
    look(copied_base, ready=False)


def test_a_base_that_fills_in_words_lends_its_encoder_without_pooler(copied_base):
    transformers.AutoModelForMaskedLM.from_pretrained(copied_base).save_pretrained(copied_base)
    look(copied_base, ready=False)


def test_a_head_of_other_classes_is_no_fault_of_a_base(copied_base):
    change(copied_base, id2label={"0": "one", "1": "two"}, label2id={"one": 0, "two": 1})
    look(copied_base, ready=False)
    assert "cannot be loaded" in refusal(copied_base)


def test_two_default_names_are_read_though_the_file_leaves_them_out(copied_base):
    settings = json.loads((copied_base / "config.json").read_text())
    for name in ("id2label", "label2id"):
        del settings[name]
    (copied_base / "config.json").write_text(json.dumps(settings))
    found = TransformersTeacher(model=str(copied_base)).check(RowFormat(), "single_label")
    assert found == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    "settings",
    [
        {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
        {"problem_type": "regression"},
    ],
)
def test_a_regression_is_refused(copied_base, settings):
    change(copied_base, **settings)
    with pytest.raises(InputError, match="is a regression: its answer is a number"):
        TransformersTeacher(model=str(copied_base)).check(RowFormat(), "single_label")


# Weights


@pytest.mark.parametrize("ready", [True, False])
def test_a_git_lfs_pointer_is_named(copied_base, ready):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (copied_base / "model.safetensors").write_text(pointer)
    said = f"{copied_base / 'model.safetensors'} is a git-lfs pointer, not the weights."
    assert refusal(copied_base, ready=ready).startswith(said)


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_half_a_download_is_refused(copied_base, share, ready):
    path = copied_base / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert refusal(copied_base, ready=ready).startswith(f"The weights of {copied_base} cannot be")


def test_a_shard_that_is_missing_is_refused(copied_base):
    model = AutoModelForSequenceClassification.from_pretrained(copied_base)
    (copied_base / "model.safetensors").unlink()
    model.save_pretrained(copied_base, max_shard_size="50KB")
    look(copied_base)
    max(copied_base.glob("model-*.safetensors")).unlink()
    assert refusal(copied_base).startswith(f"The weights of {copied_base} cannot be loaded")


@pytest.mark.parametrize("ready", [True, False])
def test_layers_that_the_weights_do_not_have_are_named(copied_base, ready):
    change(copied_base, num_hidden_layers=5)
    said = refusal(copied_base, ready=ready)
    assert said.startswith(f"The weights of {copied_base} lack bert.encoder.layer.4.")


def test_a_model_that_answers_no_numbers_is_refused(copied_base):
    weights = load_file(copied_base / "model.safetensors")
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, copied_base / "model.safetensors", metadata={"format": "pt"})
    assert "answers NaN or infinity" in refusal(copied_base)


# Tokens


@pytest.mark.parametrize("max_length", [65, 66, 67, 4000])
def test_the_usable_length_of_roberta_is_told(build, max_length):
    teacher = build("roberta")
    assert refusal(teacher.model, max_length) == (
        f"teacher.max_length is {max_length}; {teacher.model} reads at most 64 tokens. "
        "Set it to 64 or less."
    )
    look(teacher.model, 64)


def test_tokens_beyond_the_embeddings_are_refused(copied_base):
    tokenizer = AutoTokenizer.from_pretrained(copied_base)
    largest = len(tokenizer)
    tokenizer.add_tokens(["parcel"])
    tokenizer.save_pretrained(copied_base)
    said = refusal(copied_base)
    assert f"numbers its tokens up to {largest}; the model has embeddings of {largest}" in said
    model = AutoModelForSequenceClassification.from_pretrained(copied_base)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(copied_base)
    look(copied_base)


def test_a_decoder_that_knows_no_padding_is_refused(build):
    teacher = build("qwen2")
    look(teacher.model)
    change(teacher.model, pad_token_id=None)
    assert "cannot answer two rows at once" in refusal(teacher.model)


def test_padding_that_changes_answers_is_refused(copied_base, build):
    """BERT reads its first token, which is padding where rows are padded on the left."""
    for folder in (copied_base, build("qwen2").model):
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        tokenizer.save_pretrained(folder)
    assert "Its tokenizer pads on the left: try the other" in refusal(copied_base)
    look(build("qwen2").model)


def test_token_types_that_are_not_served_are_refused(copied_base):
    tokenizer = AutoTokenizer.from_pretrained(copied_base)
    ends = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:1 $A:0 [SEP]:0", special_tokens=ends
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(copied_base)
    assert "another type than 0" in refusal(copied_base)


def test_a_tokenizer_that_its_file_does_not_describe_is_refused(copied_base):
    start = Checkpoint(copied_base, None, 16)
    texts = ["purr kitten", "purr [SEP] kitten"]
    check_reading(start, texts)
    tokenizer = AutoTokenizer.from_pretrained(copied_base, split_special_tokens=True)
    tokenizer.save_pretrained(copied_base)
    check_reading(start, texts[:1])
    with pytest.raises(InputError, match=r"reads 'purr \[SEP\] kitten' differently than its"):
        check_reading(start, texts)


# Copies of layers of other builds


def say(model, ids):
    with torch.inference_mode():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("name", ["albert", "modernbert", "qwen2"])
@pytest.mark.parametrize("kept", [1, 3])
def test_the_first_layers_are_the_model_that_is_loaded_with_so_many(build, name, kept):
    """The library's own way to fewer layers: it leaves out those that its settings leave out."""
    teacher = build(name)
    settings = {"num_hidden_layers": kept}
    types = getattr(BUILDS[name], "layer_types", None)
    if types:
        settings["layer_types"] = types[:kept]
    plain = AutoModelForSequenceClassification.from_pretrained(teacher.model, **settings)
    ids = torch.randint(4, 30, (3, 12), generator=torch.Generator().manual_seed(1))
    copied = copy_layers(teacher, kept, CLASSES, "first")
    torch.testing.assert_close(say(copied, ids), say(plain, ids), atol=1e-4, rtol=1e-4)


def test_a_copied_layer_keeps_its_own_settings_and_weights(build):
    teacher = build("modernbert")
    full = AutoModelForSequenceClassification.from_pretrained(teacher.model)
    assert full.config.layer_types[1:4:2] == ["sliding_attention", "full_attention"]
    copied = copy_layers(teacher, 2, CLASSES, "2-4")
    assert copied.config.layer_types == ["sliding_attention", "full_attention"]
    for place, number in enumerate((1, 3)):
        mine, theirs = (m.model.layers[n] for m, n in ((copied, place), (full, number)))
        for name, weight in mine.state_dict().items():
            assert torch.equal(weight, theirs.state_dict()[name]), name


@pytest.mark.parametrize("name", ["albert", "modernbert", "qwen2"])
def test_students_of_other_builds_learn_and_are_served_as_they_were_trained(build, name, tmp_path):
    teacher = build(name)
    opened = probe(teacher, "teacher.max_length", ready=True)
    LayersStudent.check_teacher([LayersStudent(layers=1)], *opened, ["kl"])
    rows = make_gold_set(teacher.model, 60)
    student = LayersStudent(layers=1, epochs=15, learning_rate=0.005, batch_rows=16)
    (tmp_path / "out").mkdir()
    curve = student.train(rows, tmp_path / "out")
    assert curve[-1]["train/loss"] < curve[0]["train/loss"]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        expected = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
    served = open_model(tmp_path / "out").logits(TEXTS)
    np.testing.assert_allclose(served, torch.stack(expected), atol=1e-3)


def test_a_build_without_layers_to_copy_is_refused_before_any_work(written, tiny_base, tmp_path):
    config = transformers.FunnelConfig(
        vocab_size=60,
        d_model=32,
        n_head=2,
        d_head=16,
        d_inner=64,
        block_sizes=[1, 1],
        num_decoder_layers=1,
        num_labels=3,
        id2label=dict(enumerate(CLASSES)),
    )
    save_model(tmp_path / "funnel", config, tiny_base)
    written["teacher"] = {
        "kind": "transformers",
        "model": str(tmp_path / "funnel"),
        "max_length": 16,
    }
    with pytest.raises(InputError, match="static"):
        check_config(parse_config(written, "test"))
    written["students"] = [StaticStudent(dimensions=8, epochs=1).model_dump()]
    check_config(parse_config(written, "test"))


# Code that a model brings


def bring_code(folder, mark, **settings):
    change(folder, auto_map={"AutoConfig": "own.OwnConfig"}, **settings)
    (folder / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import PretrainedConfig\n"
        "class OwnConfig(PretrainedConfig):\n    model_type = 'own'\n"
    )


@pytest.mark.parametrize("settings", [{}, {"model_type": "own"}])
@pytest.mark.parametrize("kind", [("finetune", "base"), ("transformers", "model")])
def test_a_teacher_that_brings_code_is_refused(written, copied_base, tmp_path, kind, settings):
    bring_code(copied_base, tmp_path / "ran", **settings)
    written["teacher"] = {"kind": kind[0], kind[1]: str(copied_base), "max_length": 16}
    with pytest.raises(InputError, match="custom code") as caught:
        check_config(parse_config(written, "test"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [("finetune", "base"), ("transformers", "model")])
def test_whoever_says_yes_on_standard_input_runs_no_code_either(
    written, copied_base, tmp_path, kind
):
    bring_code(copied_base, tmp_path / "ran", model_type="own")
    written["teacher"] = {"kind": kind[0], kind[1]: str(copied_base), "max_length": 16}
    (tmp_path / "distill.yaml").write_text(json.dumps(written))
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "check", str(tmp_path / "distill.yaml")],
        input="y\n" * 20,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "custom code" in " ".join(done.stdout.split() + done.stderr.split())
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()
