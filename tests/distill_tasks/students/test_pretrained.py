import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file
from samples import CLASSES, FILLERS, WORDS, make_gold_set, make_rows

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.core.settings import expand_grid
from distill_tasks.serving.served_model import ABOUT, open_model
from distill_tasks.stages.prepare import check_config
from distill_tasks.students import (
    PretrainedStudent,
)
from distill_tasks.students.controls import without_teacher
from distill_tasks.students.pretrained import check_start, is_encoder, make_classifier
from distill_tasks.training.checkpoint import Checkpoint

TEXTS = list(make_rows(30, seed=2)["text"])
TINY = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def write_encoder(folder, config, model_class=transformers.AutoModel):
    """Write a random model whose answers depend on every word, with a vocabulary of its own."""
    words = [*FILLERS, *(word for group in WORDS.values() for word in group)]
    pieces = [*dict.fromkeys(words), "<mask>", "<unk>", "<end>", "<begin>", "<pad>"]
    tokenizer = transformers.BertTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        **{
            f"{name}_token": f"<{sign}>"
            for name, sign in {
                "unk": "unk",
                "sep": "end",
                "cls": "begin",
                "pad": "pad",
                "mask": "mask",
            }.items()
        },
    )
    tokenizer.save_pretrained(folder)
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(4)
    model = model_class.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny ELECTRA, as it comes from pretraining: no head, other tokens than the teacher's."""
    folder = tmp_path_factory.mktemp("some_models") / "tiny electra_v1"
    return write_encoder(folder, transformers.ElectraConfig(**TINY, embedding_size=32))


@pytest.fixture
def copied(encoder, tmp_path):
    """A copy of the tiny ELECTRA that a test may change."""
    return Path(shutil.copytree(encoder, tmp_path / "encoder"))


@pytest.fixture(scope="module")
def training_set(tiny_base):
    return make_gold_set(tiny_base, 160)


def make_config(encoder, **changes):
    settings = {"epochs": 8, "learning_rate": 0.005, "batch_rows": 16, **changes}
    return PretrainedStudent(model=str(encoder), **settings)


STILL = {"epochs": 1, "learning_rate": 1e-30}
"""Steps too small to change a weight: what comes out is what training began with."""


# Names and settings


def test_the_name_holds_the_last_part_of_the_models_path_alone():
    assert PretrainedStudent(model="someone/small-BERT_v1.5").name == "pretrained-small-BERT-v1.5"
    assert PretrainedStudent(model="/a/b c/d+e f/").name == "pretrained-d-e-f"
    assert PretrainedStudent(model="a/é").name == "pretrained-model"


def test_the_name_tells_revisions_and_settings_apart():
    first, second = (PretrainedStudent(model="a/b", revision=c * 40, epochs=3) for c in "ef")
    assert first.name == "pretrained-b-epochs-3-revision-eeeeeeee"
    assert second.name == "pretrained-b-epochs-3-revision-ffffffff"


def test_models_and_tokens_read_span_the_grid():
    grid = {"family": "pretrained", "model": ["x/one", "two"], "max_length": [None, 64]}
    students = [PretrainedStudent.model_validate(one) for one in expand_grid([grid])]
    assert [student.name for student in students] == [
        "pretrained-one",
        "pretrained-one-max-length-64",
        "pretrained-two",
        "pretrained-two-max-length-64",
    ]
    assert students[0].model == "x/one"


def test_a_model_without_a_name_is_refused():
    with pytest.raises(ValidationError, match="at least 1 character"):
        PretrainedStudent(model="")


def test_of_the_teacher_only_the_tokens_read_count():
    student = PretrainedStudent(model="a/b", revision="c")
    assert student.own_start(Checkpoint("t", None, 96)) == Checkpoint("a/b", "c", 96)
    assert student.own_start(None).max_length == 256
    shorter = student.model_copy(update={"max_length": 32})
    assert shorter.own_start(Checkpoint("t", None, 96)).max_length == 32
    assert not student.needs_teacher_weights


def digest_start(student):
    return student.own_start(None).digest()


def test_the_digest_of_the_start_is_that_of_the_models_bytes(copied):
    student = PretrainedStudent(model=str(copied))
    before = digest_start(student)
    assert digest_start(student) == before
    (copied / "tokenizer_config.json").write_text("{}")
    assert digest_start(student) != before
    hub = [PretrainedStudent(model="a/b", revision=revision) for revision in "cd"]
    assert digest_start(hub[0]) != digest_start(hub[1])


# Training


@pytest.fixture(scope="module")
def trained(encoder, training_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, make_config(encoder).train(training_set, folder)


def test_a_pretrained_student_learns_what_the_teacher_says(trained):
    folder, curve = trained
    rows = make_rows(90, seed=8)
    said = open_model(folder).logits(rows["text"].tolist()).argmax(axis=1)
    assert np.mean(np.array(CLASSES)[said] == rows["label"]) > 0.8
    assert [point["epoch"] for point in curve] == list(range(1, 9))


def test_it_reads_with_its_own_tokenizer_as_much_as_the_teacher(trained, encoder, training_set):
    folder, _ = trained
    ours, theirs = (
        transformers.AutoTokenizer.from_pretrained(where).get_vocab()
        for where in (folder, training_set.teacher.model)
    )
    assert ours == transformers.AutoTokenizer.from_pretrained(encoder).get_vocab() != theirs
    assert json.loads((folder / ABOUT).read_text())["max_length"] == training_set.teacher.max_length


def test_the_served_student_answers_as_the_trained_model_does(trained):
    folder, _ = trained
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        rows = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
    expected = torch.stack(rows).numpy()
    assert np.ptp(expected, axis=0).min() > 0.1
    np.testing.assert_allclose(open_model(folder).logits(TEXTS), expected, atol=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
def test_embeddings_learn_only_where_they_are_not_frozen(encoder, training_set, tmp_path, frozen):
    config = make_config(encoder, epochs=1, freeze_embeddings=frozen)
    config.train(training_set, tmp_path)
    name = "embeddings.word_embeddings.weight"
    before = load_file(encoder / "model.safetensors")[name]
    after = load_file(tmp_path / "model.safetensors")[f"electra.{name}"]
    assert torch.equal(before, after) is frozen


def test_a_student_starts_from_every_weight_of_the_pretrained_encoder(
    encoder, training_set, tmp_path
):
    make_config(encoder, **STILL).train(training_set, tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    theirs = load_file(encoder / "model.safetensors")
    for name, weight in theirs.items():
        torch.testing.assert_close(ours.pop(f"electra.{name}"), weight)
    assert {name.split(".")[0] for name in ours} == {"classifier"}


KINDS = {
    "bert": transformers.BertConfig(**TINY),
    "roberta": transformers.RobertaConfig(**TINY | {"max_position_embeddings": 80}),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=60, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=40
    ),
    "mpnet": transformers.MPNetConfig(**TINY),
    "deberta-v2": transformers.DebertaV2Config(**TINY),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_a_model_brings_from_another_task_is_left_behind(kind, training_set, tmp_path):
    config = KINDS[kind]
    config.num_labels = 3
    write_encoder(tmp_path, config, transformers.AutoModelForSequenceClassification)
    check_start(Checkpoint(str(tmp_path), None, 16))
    torch.manual_seed(0)
    model = make_classifier(Checkpoint(str(tmp_path), None, 16), training_set)
    brought = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    inside = f"{model.base_model_prefix}."
    theirs = brought.state_dict()
    for name, weight in model.state_dict().items():
        same = torch.equal(weight, theirs[name])
        assert same if name.startswith(inside) else not same or not weight.any(), name
    assert model.config.id2label == dict(enumerate(CLASSES))
    rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates <= {0.0}


def test_a_checkpoint_that_fills_in_words_lends_its_encoder(training_set, tmp_path):
    write_encoder(tmp_path, transformers.BertConfig(**TINY), transformers.AutoModelForMaskedLM)
    model = make_classifier(Checkpoint(str(tmp_path), None, 16), training_set)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = model.state_dict()
    shared = [name for name in theirs if name.startswith("bert.")]
    assert len(shared) > 30
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)


def test_a_control_starts_from_the_same_pretrained_model(
    encoder, training_set, tiny_base, tmp_path
):
    student = make_config(encoder, **STILL)
    control = without_teacher(training_set, student, Checkpoint(tiny_base, None, 16))
    for name, one in {"taught": training_set, "alone": control}.items():
        (tmp_path / name).mkdir()
        student.train(one, tmp_path / name)
    distilled, alone = (
        load_file(tmp_path / name / "model.safetensors") for name in ("taught", "alone")
    )
    for name, weight in distilled.items():
        torch.testing.assert_close(weight, alone[name])


# Refused before any work


def refusal(written, folder, **student):
    written["students"] = [{"family": "pretrained", "model": str(folder), **student}]
    with pytest.raises(InputError) as caught:
        check_config(parse_config(written, "test"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_encoder_is_accepted_up_to_the_last_token_that_it_reads(encoder):
    for tokens in (16, 40):
        check_start(Checkpoint(str(encoder), None, tokens))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["pytorch_model.bin"], "has only pytorch_model.bin, but no model.safetensors"),
        (["tf_model.h5", "flax_model.msgpack"], "has only flax_model.msgpack, tf_model.h5, but"),
        ([], "has no weights, but no model.safetensors"),
    ],
)
def test_weights_that_are_no_safetensors_are_refused(written, copied, names, found):
    for name in names:
        shutil.copy(copied / "model.safetensors", copied / name)
    (copied / "model.safetensors").unlink()
    said = refusal(written, copied)
    assert said.startswith(f"Pretrained model {copied} {found}")
    assert said.endswith("write it with save_pretrained.")


def test_weights_in_several_safetensors_are_accepted(copied):
    model = transformers.AutoModel.from_pretrained(copied)
    (copied / "model.safetensors").unlink()
    model.save_pretrained(copied, max_shard_size="5KB")
    assert (copied / "model.safetensors.index.json").is_file()
    check_start(Checkpoint(str(copied), None, 16))


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (transformers.GPT2Config(n_layer=1), "GPT2LMHeadModel"),
        (transformers.LlamaConfig(num_hidden_layers=1), "LlamaForCausalLM"),
        (transformers.T5Config(num_layers=1), "T5ForConditionalGeneration"),
        (transformers.BartConfig(encoder_layers=1), "BartForConditionalGeneration"),
        (transformers.ViTConfig(num_hidden_layers=1), "ViTForImageClassification"),
        (transformers.BertConfig(**TINY, is_decoder=True), "BertLMHeadModel"),
        (transformers.WhisperConfig(encoder_layers=1), "WhisperForConditionalGeneration"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_models_of_another_task_are_refused(written, copied, config, model):
    config.architectures = [model]
    config.save_pretrained(copied)
    assert not is_encoder(config)
    assert f"{copied} is {model}, no text encoder" in refusal(written, copied)


@pytest.mark.parametrize("kind", [*KINDS, "electra", "albert", "modernbert", "xlm-roberta"])
def test_text_encoders_are_told_from_other_models(kind):
    assert is_encoder(transformers.AutoConfig.for_model(kind))


def test_more_tokens_than_the_model_reads_are_refused(written, encoder):
    said = refusal(written, encoder, max_length=64)
    said_so = f"students.max_length is 64; {encoder} reads at most 40 tokens. Set it to 40 or less."
    assert said == said_so
    written["teacher"]["max_length"] = 48
    assert "students.max_length is 48" in refusal(written, encoder)


def test_a_hub_id_without_revision_is_refused(written):
    assert "has no revision" in refusal(written, "someone/some-model")


def test_a_folder_that_holds_no_model_is_refused(written, copied):
    (copied / "config.json").unlink()
    said = refusal(written, copied)
    assert said.startswith(f"Model folder {copied} has no config.json")


def test_a_tokenizer_without_fast_implementation_is_refused(written, copied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    transformers.ByT5Tokenizer().save_pretrained(copied)
    assert "has a ByT5Tokenizer, which has no fast implementation" in refusal(written, copied)


def test_a_model_that_brings_its_own_code_is_refused(written, copied):
    settings = json.loads((copied / "config.json").read_text())
    settings |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (copied / "config.json").write_text(json.dumps(settings))
    (copied / "own.py").write_text(f"open({str(copied / 'ran')!r}, 'w')\nclass OwnConfig: pass\n")
    assert "contains custom code" in refusal(written, copied)
    assert not (copied / "ran").exists()


def test_beside_a_saved_teacher_pretrained_students_are_checked_too(written, encoder, data_folder):
    frames = [pd.read_parquet(path) for path in sorted(data_folder.glob("*.parquet"))]
    answers = pd.DataFrame({"text": pd.concat(frames)["text"]})
    for name in CLASSES:
        answers[name] = 1 / 3
    answers.to_parquet(data_folder / "answers.parquet")
    written["teacher"] = {"kind": "saved", "path": str(data_folder / "answers.parquet")}
    assert "is 256; " in refusal(written, encoder)
