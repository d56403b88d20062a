import json
import logging
import shutil
import sys
import tomllib
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from packaging.requirements import Requirement
from pydantic import ValidationError
from samples import CLASSES, make_rows
from scipy import special
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
)

from distill_tasks.core.errors import InputError
from distill_tasks.serving.served_model import ABOUT, GRAPH, open_model
from distill_tasks.students.formats import (
    PACKAGES,
    USUAL,
    ExportConfig,
    choose_variants,
    export_variant,
)

ROOT = Path(__file__).parents[3]
VARIANTS = ("onnx", "onnx_int8", "onnx_int8_static")
MAX_LENGTH = 48
WORDS = list(make_rows(12, seed=9)["text"])
TEXTS = ["", "purr", "puppy leash", *WORDS, "the kitten " * 10, "puppy leash reef " * 40]
"""Texts of 2 to 48 tokens, shorter and longer than what is traced and than any window."""

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def build(tiny_base, tmp_path_factory):
    """Make a random model of some architecture, whose answers depend on every word."""
    vocabulary = json.loads((tiny_base / "config.json").read_text())["vocab_size"]

    def build(architecture, problem="single_label", **settings):
        folder = tmp_path_factory.mktemp(architecture.model_type)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_base / name, folder)
        config = architecture(
            **{"vocab_size": vocabulary, "pad_token_id": 0, **TINY, **settings},
            id2label=dict(enumerate(CLASSES)),
            label2id={name: number for number, name in enumerate(CLASSES)},
        )
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.mul_(8)
        model.save_pretrained(folder)
        about = {"runtime": "transformers", "problem": problem, "classes": list(CLASSES)}
        (folder / ABOUT).write_text(json.dumps(about | {"max_length": MAX_LENGTH}))
        return folder

    return build


@pytest.fixture(scope="module")
def source(build):
    return build(BertConfig)


@pytest.fixture(scope="module")
def folders(source, tmp_path_factory):
    """Every variant of the tiny model, the later ones from the graph of the first."""
    made, graph = {}, None
    for variant in VARIANTS:
        made[variant] = tmp_path_factory.mktemp(variant)
        export_variant(source, variant, graph, WORDS, made[variant])
        graph = made["onnx"] / GRAPH
    return made


def logits_of(folder):
    return open_model(folder).logits(TEXTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_a_graph_a_tokenizer_and_a_description_without_pickle(
    source, folders, variant
):
    folder = folders[variant]
    assert {path.name for path in folder.iterdir()} == {GRAPH, ABOUT, "tokenizer.json"}
    about, trained = (json.loads((each / ABOUT).read_text()) for each in (folder, source))
    assert about == trained | {"runtime": "onnx", "padding": 0}
    for name in (GRAPH, "tokenizer.json"):
        assert b"pickle" not in (folder / name).read_bytes()
    ours, theirs = (json.loads((each / "tokenizer.json").read_text()) for each in (folder, source))
    cut = ours["truncation"]
    assert (cut["max_length"], cut["direction"]) == (about["max_length"], "Right")
    assert ours == theirs | {"truncation": cut}
    onnx.checker.check_model(folder / GRAPH, full_check=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_answers_wherever_it_lies(folders, variant, tmp_path):
    moved = Path(shutil.copytree(folders[variant], tmp_path / "elsewhere"))
    np.testing.assert_array_equal(logits_of(moved), logits_of(folders[variant]))


def test_float32_has_the_logits_of_torch(source, folders):
    theirs = logits_of(source)
    assert np.ptp(theirs, axis=0).min() > 0.1
    np.testing.assert_allclose(logits_of(folders["onnx"]), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "operator"),
    [("onnx_int8", "DynamicQuantizeLinear"), ("onnx_int8_static", "QuantizeLinear")],
)
def test_int8_computes_in_int8_nearly_what_float32_does(folders, variant, operator):
    exact, rounded = logits_of(folders["onnx"]), logits_of(folders[variant])
    assert 0 < np.abs(exact - rounded).max() < 0.25 * np.ptp(exact)
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.8
    operators = {node.op_type for node in onnx.load(folders[variant] / GRAPH).graph.node}
    assert operator in operators
    assert operator not in {node.op_type for node in onnx.load(folders["onnx"] / GRAPH).graph.node}
    assert (folders[variant] / GRAPH).stat().st_size < (folders["onnx"] / GRAPH).stat().st_size


def test_static_int8_depends_on_the_texts_that_it_was_calibrated_on(source, folders, tmp_path):
    export_variant(source, "onnx_int8_static", folders["onnx"] / GRAPH, ["purr"], tmp_path)
    gap = logits_of(tmp_path) - logits_of(folders["onnx_int8_static"])
    assert np.abs(gap).max() > 1e-4


@pytest.fixture
def silence(capfd, caplog, monkeypatch):
    """See that nothing is printed or logged, and logging and warnings are as they were after."""

    @contextmanager
    def silence():
        monkeypatch.setattr(logging.root.manager, "disable", 5)
        before = sys.stdout, sys.stderr, list(warnings.filters)
        yield
        assert capfd.readouterr() == ("", "")
        assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
        assert logging.root.manager.disable == 5
        assert (sys.stdout, sys.stderr, warnings.filters) == before

    return silence


def test_int8_is_the_same_from_scratch_and_from_the_graph(source, folders, tmp_path, silence):
    with silence():
        export_variant(source, "onnx_int8", None, [], tmp_path)
    np.testing.assert_array_equal(logits_of(tmp_path), logits_of(folders["onnx_int8"]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_exporting_from_a_graph_is_silent_and_repeats(source, folders, variant, tmp_path, silence):
    with silence():
        export_variant(source, variant, folders["onnx"] / GRAPH, WORDS, tmp_path)
    np.testing.assert_array_equal(logits_of(tmp_path), logits_of(folders[variant]))


def test_an_export_that_fails_leaves_logging_as_it_was_and_no_graph(source, tmp_path, silence):
    broken = Path(shutil.copytree(source, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"half")
    (tmp_path / "target").mkdir()
    with silence(), pytest.raises(Exception, match="header"):
        export_variant(broken, "onnx", None, [], tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


def test_a_graph_names_no_folder_of_the_machine_it_was_made_on(folders):
    for folder in folders.values():
        assert str(Path(torch.__file__).parents[1]).encode() not in (folder / GRAPH).read_bytes()


def test_several_labels_are_answered_as_by_torch(build, folders, tmp_path):
    problem = {"problem": "multi_label", "problem_type": "multi_label_classification"}
    source = build(BertConfig, **problem)  # of the same weights, so that it has the same graph
    about = json.loads((source / ABOUT).read_text())
    halfway = np.median(special.expit(logits_of(source)), axis=0).tolist()
    about["calibration"] = {"thresholds": halfway, "temperature": 1.0}
    (source / ABOUT).write_text(json.dumps(about))
    export_variant(source, "onnx", folders["onnx"] / GRAPH, [], tmp_path)
    ours, theirs = (open_model(folder).answer(TEXTS) for folder in (tmp_path, source))
    assert len({answer.label for answer in ours}) > 3
    for answer, other, row in zip(ours, theirs, logits_of(source), strict=True):
        assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        if np.abs(special.expit(row) - halfway).min() > 1e-5:
            assert answer.label == other.label


ARCHITECTURES = {
    "albert": (AlbertConfig, {"embedding_size": 16}),
    "distilbert": (DistilBertConfig, {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}),
    "electra": (ElectraConfig, {"embedding_size": 16}),
    # Half of its layers look at the nearest 16 tokens alone.
    "modernbert": (
        ModernBertConfig,
        {"num_hidden_layers": 2, "global_attn_every_n_layers": 2, "local_attention": 16}
        | dict.fromkeys(("bos_token_id", "cls_token_id"), 2)
        | dict.fromkeys(("eos_token_id", "sep_token_id"), 3),
    ),
    "roberta": (RobertaConfig, {}),
    # Its attention is not torch's `scaled_dot_product_attention`.
    "deberta-v2": (DebertaV2Config, {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
}


QUICK = ("distilbert",)


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ARCHITECTURES],
)
def test_other_architectures_have_the_logits_of_torch_too(build, name, tmp_path):
    architecture, settings = ARCHITECTURES[name]
    source = build(architecture, **settings)
    export_variant(source, "onnx", None, [], tmp_path)
    theirs = logits_of(source)
    assert np.ptp(theirs, axis=0).min() > 0.1
    np.testing.assert_allclose(logits_of(tmp_path), theirs, atol=1e-3)


@pytest.fixture
def installed(monkeypatch):
    """Say which packages are installed."""

    def say(*absent):
        found = dict.fromkeys(absent)
        monkeypatch.setattr(
            "distill_tasks.students.formats.find_spec", lambda name: found.get(name, name)
        )

    return say


def test_auto_is_the_usual_variants_where_the_packages_are_there(installed):
    installed()
    assert choose_variants(ExportConfig()) == USUAL == ("onnx", "onnx_int8")


@pytest.mark.parametrize("absent", [("onnx",), ("onnxruntime",), ("onnxscript", "onnx")])
def test_auto_is_none_where_any_package_is_missing(installed, absent):
    installed(*absent)
    assert choose_variants(ExportConfig(variants="auto")) == ()


@pytest.mark.parametrize("absent", [(), ("onnx", "onnxruntime", "onnxscript")])
def test_an_empty_list_is_no_variants_whatever_is_installed(installed, absent):
    installed(*absent)
    assert choose_variants(ExportConfig(variants=[])) == ()


def test_variants_asked_for_by_name_are_made_in_that_order(installed):
    installed()
    asked = ("onnx_int8_static", "onnx")
    assert choose_variants(ExportConfig(variants=list(asked))) == asked


def test_a_variant_asked_for_by_name_needs_its_packages(installed):
    installed("onnxscript")
    with pytest.raises(InputError) as caught:
        choose_variants(ExportConfig(variants=["onnx", "onnx_int8"]))
    assert str(caught.value) == (
        "export.variants asks for onnx, onnx_int8, but onnxscript is not installed. "
        "`pip install 'potstill[onnx]'`, or set export.variants to []."
    )


@pytest.mark.parametrize("wrong", ["onnx", ["torch"], None, 3])
def test_an_unknown_variant_is_refused(wrong):
    with pytest.raises(ValidationError, match="onnx_int8_static"):
        ExportConfig(variants=wrong)


def test_a_variant_named_twice_is_refused():
    with pytest.raises(ValidationError, match="a variant is listed twice"):
        ExportConfig(variants=["onnx", "onnx"])


def test_the_extra_installs_what_the_variants_need():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {Requirement(line).name for line in extra["optional-dependencies"]["onnx"]}
    assert wanted == set(PACKAGES)
