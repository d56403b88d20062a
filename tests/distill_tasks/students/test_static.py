import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from samples import CLASSES, make_gold_set
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score

from distill_tasks.core.errors import InputError
from distill_tasks.core.settings import expand_grid
from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.serving.served_model import open_model
from distill_tasks.students.static import StaticStudent, make_embeddings
from distill_tasks.students.token_vectors import (
    POOLED_TOKENS,
    VOCABULARIES,
    keep_vocabulary,
    pool_vocabulary,
    read_input_embeddings,
    reduce_dimensions,
    weigh_tokens,
)
from distill_tasks.training.checkpoint import Checkpoint

STARTS = [
    StaticStudent(start=start, sif=sif) for start in ("tokens", "teacher") for sif in (False, True)
]
ROUNDING = 0.06
"""Of bfloat16, where the device takes it: a wrong vector is off by about 1."""


def save_teacher(folder, kind, tokenizer, **widths):
    """Save a random encoder of one layer, whose tokens are all at home in its tokenizer."""
    folder.mkdir()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(2)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), num_hidden_layers=1, num_attention_heads=2, **widths
    )
    model = transformers.AutoModel.from_config(config)
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    return Checkpoint(folder, None, 16)


def words_tokenizer(frame, words=20):
    """Return a tokenizer of whole words that puts ``frame`` around a text, or nothing."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    names = [*special, *(f"word{number}" for number in range(words))]
    vocabulary = {name: number for number, name in enumerate(names)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if frame:
        numbers = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
        plain.post_processor = tokenizers.processors.TemplateProcessing(
            single=frame, special_tokens=numbers
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]"
    )


TEACHERS = {
    "bert": ("[CLS] $A [SEP]", {"hidden_size": 8, "intermediate_size": 16}),
    "roberta": ("[CLS] $A [SEP] [SEP]", {"hidden_size": 8, "intermediate_size": 16}),
    "distilbert": ("$A [SEP]", {"dim": 8, "hidden_dim": 16}),
    "electra": (None, {"hidden_size": 8, "intermediate_size": 16, "embedding_size": 4}),
}


@pytest.fixture(params=TEACHERS)
def teacher(request, tmp_path):
    frame, widths = TEACHERS[request.param]
    return save_teacher(tmp_path / "teacher", request.param, words_tokenizer(frame), **widths)


def test_a_token_stands_for_what_the_teacher_makes_of_it_as_a_text_of_its_own(teacher):
    """The plain way: the word as a text, read by the tokenizer, one at a time, in float32."""
    model = transformers.AutoModel.from_pretrained(teacher.model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher.model)
    pooled = pool_vocabulary(teacher)
    assert pooled.dtype == np.float32
    assert pooled.shape == (24, 8)
    for number in range(20):
        with torch.inference_mode():
            states = model(**tokenizer(f"word{number}", return_tensors="pt")).last_hidden_state
        expected = states[0].mean(dim=0).numpy()
        np.testing.assert_allclose(pooled[4 + number], expected, atol=ROUNDING)


def test_vocabularies_larger_than_a_batch_are_pooled_to_their_end(tmp_path):
    tokenizer = words_tokenizer("[CLS] $A [SEP]", POOLED_TOKENS + 40)
    widths = {"hidden_size": 8, "intermediate_size": 16}
    teacher = save_teacher(tmp_path / "teacher", "bert", tokenizer, **widths)
    pooled = pool_vocabulary(teacher)
    assert pooled.shape == (POOLED_TOKENS + 44, 8)
    model = transformers.AutoModel.from_pretrained(teacher.model).eval()
    last = torch.tensor([[2, POOLED_TOKENS + 43, 3]])
    with torch.inference_mode():
        expected = model(last).last_hidden_state[0].mean(dim=0).numpy()
    np.testing.assert_allclose(pooled[-1], expected, atol=ROUNDING)


def test_the_tokens_of_the_teacher_are_its_input_embeddings(teacher):
    model = transformers.AutoModel.from_pretrained(teacher.model)
    expected = model.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(read_input_embeddings(teacher), expected)


matrices = arrays.arrays(
    np.float32,
    st.tuples(st.integers(8, 30), st.integers(2, 6)),
    elements=st.floats(-3, 3, width=32),
)


@given(matrices, st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_reduced_dimensions_are_those_of_scikit_learn(vectors, dimensions, seed):
    noise = np.random.default_rng(seed).normal(size=vectors.shape) * np.arange(
        1, vectors.shape[1] + 1
    )
    vectors = (vectors + noise).astype(np.float32)  # no two directions of equal variance
    kept = min(dimensions, vectors.shape[1])
    reduced = reduce_dimensions(vectors, dimensions)
    expected = PCA(kept, svd_solver="full").fit_transform(vectors.astype(np.float64))
    expected /= expected[:, 0].std()
    assert reduced.dtype == np.float32
    assert reduced.shape == (len(vectors), kept)
    # Directions may point either way: products of rows are the same for both.
    np.testing.assert_allclose(reduced @ reduced.T, expected @ expected.T, atol=2e-3)
    assert reduced[:, 0].std() == pytest.approx(1, abs=1e-3)


def test_weights_of_tokens_by_hand():
    tokens = [np.array([0, 0, 1]), np.array([3])]
    # Shares are a half, a quarter, never (as if once), a quarter.
    half, quarter = 0.001 / 0.501, 0.001 / 0.251
    mean = (half + half + quarter + quarter) / 4
    expected = np.array([half, quarter, quarter, quarter]) / mean
    np.testing.assert_allclose(weigh_tokens(tokens, 4), expected, rtol=1e-6)
    rare = weigh_tokens([np.zeros(999, np.int64), np.array([1])], 2)
    assert rare[1] / rare[0] == pytest.approx(0.5 / (0.001 / (0.001 + 0.999)))


rows_of_tokens = st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1)


@given(rows_of_tokens)
def test_weights_fall_with_frequency_have_mean_one_and_do_not_see_where_texts_end(rows):
    tokens = [np.array(row, np.int64) for row in rows]
    weights, every = weigh_tokens(tokens, 12), np.concatenate(tokens)
    counts = np.bincount(every, minlength=12)
    assert (weights > 0).all()
    assert (np.diff(weights[np.argsort(counts, kind="stable")]) <= 0).all()
    assert weights[10] == weights[11] == weights.max()
    assert weights[every].mean() == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(weigh_tokens([every], 12), weights)


def test_frequent_tokens_start_shorter_by_their_weight(teacher):
    tokens = [np.array([5, 5, 5, 6]), np.array([5, 7])]
    plain = make_embeddings(StaticStudent(dimensions=4, sif=False), teacher, tokens, None)
    scaled = make_embeddings(StaticStudent(dimensions=4, sif=True), teacher, tokens, None)
    assert plain.shape == scaled.shape == (24, 4)
    np.testing.assert_allclose(scaled, plain * weigh_tokens(tokens, 24)[:, None], rtol=1e-6)


def test_both_starts_differ_and_are_reduced(teacher):
    tokens = [np.array([5, 6])]
    for start, read in (("tokens", read_input_embeddings), ("teacher", pool_vocabulary)):
        config = StaticStudent(dimensions=3, start=start, sif=False)
        made = make_embeddings(config, teacher, tokens, None)
        np.testing.assert_array_equal(made, reduce_dimensions(read(teacher), 3))


def test_the_vocabulary_goes_through_a_teacher_once(teacher, tmp_path):
    folder = tmp_path / "kept"
    pooled = keep_vocabulary(teacher, folder)
    np.testing.assert_array_equal(pooled, pool_vocabulary(teacher))
    (kept,) = folder.glob("*/vectors.npy")
    made = kept.stat().st_ino, kept.stat().st_mtime_ns
    for again in (teacher, replace(teacher, max_length=8)):
        np.testing.assert_array_equal(keep_vocabulary(again, folder), pooled)
        assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == made


def test_vectors_that_were_damaged_are_made_again(teacher, tmp_path, caplog):
    folder = tmp_path / "kept"
    pooled = keep_vocabulary(teacher, folder)
    (kept,) = folder.glob("*/vectors.npy")
    np.save(kept, pooled + 1)
    np.testing.assert_array_equal(keep_vocabulary(teacher, folder), pooled)
    assert "vectors.npy differs from the bytes that were written; it is made again" in caplog.text


def test_another_teacher_has_vectors_of_its_own(teacher, tmp_path):
    folder = tmp_path / "kept"
    pooled = keep_vocabulary(teacher, folder)
    model = transformers.AutoModel.from_pretrained(teacher.model)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(-1)
    model.save_pretrained(teacher.model)
    assert np.abs(keep_vocabulary(teacher, folder) - pooled).max() > 5 * ROUNDING
    assert len(list(folder.iterdir())) == 2


def test_a_half_written_draft_harms_nothing(teacher, tmp_path):
    folder = tmp_path / "kept"
    pooled = keep_vocabulary(teacher, folder)
    (kept,) = folder.glob("*/vectors.npy")
    whole = kept.read_bytes()
    draft = folder / f"{kept.parent.name}.partial" / kept.name  # what a kill leaves behind
    draft.parent.mkdir()
    draft.write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(kept.parent)
    np.testing.assert_array_equal(keep_vocabulary(teacher, folder), pooled)
    assert kept.read_bytes() == whole


def test_processes_that_keep_the_same_vocabulary_at_once_agree(tmp_path):
    """Not threads: transformers sets the usual precision of all of them while it loads."""
    frame, widths = TEACHERS["bert"]
    teacher = save_teacher(tmp_path / "teacher", "bert", words_tokenizer(frame), **widths)
    code = (
        "import sys; from pathlib import Path;"
        "from distill_tasks.students.base import Checkpoint;"
        "from distill_tasks.students.token_vectors import keep_vocabulary;"
        "keep_vocabulary(Checkpoint(Path(sys.argv[1]), None, 16), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(teacher.model), str(tmp_path / "kept")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    (folder,) = (tmp_path / "kept").iterdir()
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), pool_vocabulary(teacher))


def small(**changes):
    """Return a student that is trained in a moment."""
    return StaticStudent(dimensions=8, epochs=10, **changes)


@pytest.mark.parametrize("config", STARTS, ids=lambda config: config.name)
def test_same_seed_gives_the_same_bytes_kept_or_not_and_another_seed_others(
    config, tiny_base, tmp_path
):
    config = config.model_copy(update={"dimensions": 8, "epochs": 1})
    training_set = make_gold_set(tiny_base, 90)
    keeping = replace(training_set, work_dir=tmp_path / "work")
    training_sets = [training_set, keeping, keeping, replace(training_set, seed=6)]
    bytes_of = []
    for number, given_set in enumerate(training_sets):
        folder = tmp_path / str(number)
        folder.mkdir()
        config.train(given_set, folder)
        bytes_of.append((folder / "weights.npz").read_bytes())
    assert bytes_of[0] == bytes_of[1] == bytes_of[2] != bytes_of[3]
    assert (tmp_path / "work" / VOCABULARIES).is_dir() == (config.start == "teacher")


def test_every_start_gives_other_weights(tiny_base, tmp_path):
    training_set, weights = make_gold_set(tiny_base, 90), set()
    for config in STARTS:
        folder = tmp_path / config.name
        folder.mkdir()
        config.model_copy(update={"dimensions": 8, "epochs": 1}).train(training_set, folder)
        weights.add((folder / "weights.npz").read_bytes())
    assert len(weights) == len(STARTS)


@pytest.mark.parametrize("start", ["tokens", "teacher"])
def test_classes_stay_in_the_order_of_the_teachers_logits(start, tiny_base, tmp_path):
    training_set, order = make_gold_set(tiny_base, 240), [2, 0, 1]
    classes = tuple(CLASSES[number] for number in order)
    gold = np.argsort(order)[training_set.rows.gold]
    rows = Split(training_set.rows.texts, gold)
    answers = SoftLabels(training_set.soft_labels.logits[:, order], classes, "teacher")
    turned = replace(training_set, rows=rows, validation=rows, classes=classes, soft_labels=answers)
    small(start=start).train(turned, tmp_path)
    model = open_model(tmp_path)
    assert model.classes == list(classes)
    assert json.loads((tmp_path / "model.json").read_text())["classes"] == list(classes)
    said = [answer.label for answer in model.answer(rows.texts)]
    assert np.mean([said[row] == CLASSES[training_set.rows.gold[row]] for row in range(240)]) > 0.9


@pytest.mark.parametrize("start", ["tokens", "teacher"])
def test_any_number_of_labels_is_learnt_from_either_start(start, tiny_base, tmp_path):
    training_set = make_gold_set(tiny_base, 240)
    there = np.stack([training_set.rows.gold != 0, training_set.rows.gold == 2], axis=1)
    rows = Split(training_set.rows.texts, there.astype(np.int64))
    answers = SoftLabels(np.where(there, 3, -3).astype(np.float32), ("wet", "fish"), "teacher")
    several = replace(
        training_set,
        rows=rows,
        validation=rows,
        classes=("wet", "fish"),
        soft_labels=answers,
        problem="multi_label",
    )
    small(start=start).train(several, tmp_path)
    model = open_model(tmp_path)
    assert model.problem == "multi_label"
    assert f1_score(there, model.logits(rows.texts) > 0, average="macro") > 0.9


def test_what_is_served_is_half_precision_embeddings_and_a_small_net(tiny_base, tmp_path):
    small().train(make_gold_set(tiny_base, 90), tmp_path)
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as weights:
        types = {name: weights[name].dtype for name in weights}
    assert types.pop("embeddings") == np.float16
    assert set(types) == {"hidden", "hidden_bias", "output", "output_bias"}
    assert set(types.values()) == {np.dtype(np.float32)}


def test_where_it_starts_is_part_of_a_students_name():
    default = StaticStudent()
    assert default.name == "static-256"
    others = [config.name for config in STARTS if config != default]
    assert len(set(others)) == len(STARTS) - 1
    assert all(name.startswith("static-256-") for name in others)
    (student,) = expand_grid([{"family": "static", "start": "tokens"}])
    assert StaticStudent(**student).start == "tokens"


def test_it_reads_a_tokenizer_that_pads_as_one_that_does_not(copied_base, tmp_path):
    prints = []
    for name in ("plain", "padding"):
        (tmp_path / name).mkdir()
        small().train(make_gold_set(copied_base, 90), tmp_path / name)
        prints.append((tmp_path / name / "weights.npz").read_bytes())
        tokenizer = transformers.AutoTokenizer.from_pretrained(copied_base)
        tokenizer.backend_tokenizer.enable_padding(length=16)
        tokenizer.save_pretrained(copied_base)
    assert prints[0] == prints[1]


def test_without_the_teachers_weights_it_starts_from_an_encoder_that_is_named(tiny_base, tmp_path):
    training_set = make_gold_set(tiny_base, 60)
    own = StaticStudent(dimensions=8, epochs=1, model=str(tiny_base))
    (tmp_path / "own").mkdir()
    own.train(replace(training_set, teacher=None), tmp_path / "own")
    (tmp_path / "teachers").mkdir()
    teachers = replace(training_set, teacher=Checkpoint(tiny_base, None, 256))
    StaticStudent(dimensions=8, epochs=1).train(teachers, tmp_path / "teachers")
    texts = training_set.rows.texts
    first, second = (open_model(tmp_path / name).logits(texts) for name in ("own", "teachers"))
    np.testing.assert_array_equal(first, second)
    assert own.own_start(Checkpoint("t", None, 96)).max_length == 96


def test_an_encoder_is_named_in_the_student_and_in_what_it_is_kept_under(tiny_base):
    plain, own = StaticStudent(), StaticStudent(model=str(tiny_base))
    assert own.name == f"static-256-model-{tiny_base.name}"
    assert own.shape != plain.shape
    assert (own.needs_teacher_weights, plain.needs_teacher_weights) == (False, True)
    assert plain.own_start(None) is None
    own.check_own_start(None)


@pytest.mark.parametrize(
    ("model", "said"),
    [("nowhere/at-all", "no revision"), ("folder", "no config.json")],
)
def test_an_encoder_that_is_not_there_is_refused(tmp_path, model, said):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" if model == "folder" else model
    with pytest.raises(InputError, match=said):
        StaticStudent(model=str(path)).check_own_start(None)
