import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from samples import CLASSES, WORDS, make_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer, ByT5Tokenizer

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Rank
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.settings import RowFormat
from distill_tasks.stages.prepare import check_config
from distill_tasks.teachers import saved
from distill_tasks.teachers.base import ONE_HOT
from distill_tasks.teachers.finetune import FinetuneTeacher
from distill_tasks.teachers.saved import SavedTeacher
from distill_tasks.teachers.sequence_classifier import TransformersTeacher
from distill_tasks.training.classifier import SequenceClassifier


@pytest.fixture(scope="module")
def corpus():
    rows = make_rows(500, seed=1)
    gold = np.array([CLASSES.index(name) for name in rows["label"]])
    every = Split(tuple(rows["text"]), gold)
    ends = {"train": (0, 240), "validation": (240, 270), "held_out": (270, 370)}
    ends["transfer"] = (370, 500)
    return Corpus({name: every.take(np.arange(*end)) for name, end in ends.items()}, CLASSES)


@pytest.fixture(scope="module")
def recipe(tiny_base):
    settings = {"max_length": 16, "learning_rate": 0.002, "batch_rows": 8}
    return FinetuneTeacher(base=str(tiny_base), **settings)


@pytest.fixture(scope="module")
def distilled(recipe, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    recipe.train(corpus, folder, seed=7, balanced=False)
    return folder


def answer_all(folder, texts):
    rows, logits = zip(*SequenceClassifier(folder, 16).answer(texts), strict=True)
    return np.concatenate(rows), np.concatenate(logits)


def answer_plainly(folder, texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    cut = {"truncation": True, "max_length": 16, "return_tensors": "pt"}
    with torch.inference_mode():
        return np.concatenate([model(**tokenizer(text, **cut)).logits.numpy() for text in texts])


def change_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_sorted_batches_answer_every_row_once_like_a_plain_forward_pass(distilled, corpus):
    held_out = corpus.splits["held_out"].texts
    texts = [" ".join([text] * (1 + number % 3)) for number, text in enumerate(held_out)]
    rows, logits = answer_all(distilled, texts)
    plain = answer_plainly(distilled, texts)
    assert sorted(rows) == list(range(len(texts)))
    assert rows.tolist() != sorted(rows)
    np.testing.assert_allclose(logits, plain[rows], atol=0.05 * np.abs(plain).max())
    np.testing.assert_array_equal(SequenceClassifier(distilled, 16).logits(texts)[rows], logits)
    assert np.mean(logits.argmax(1) == plain[rows].argmax(1)) >= 0.95


def test_finetuning_beats_chance_on_held_out_and_names_the_classes(distilled, corpus):
    held_out = corpus.splits["held_out"]
    said = answer_plainly(distilled, held_out.texts).argmax(axis=1)
    assert np.mean(said == held_out.gold) > 0.6
    model = AutoModelForSequenceClassification.from_pretrained(distilled)
    assert model.config.id2label == dict(enumerate(CLASSES))


def test_same_seed_finetunes_the_same_weights_and_another_seed_others(recipe, corpus, tmp_path):
    short = recipe.model_copy(update={"epochs": 1})
    weights = []
    for number, seed in enumerate((7, 7, 8)):
        short.train(corpus, tmp_path / str(number), seed=seed, balanced=False)
        weights.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_a_base_kept_in_16_bits_is_finetuned_in_float32(recipe, copied_base, corpus, kept):
    model = AutoModelForSequenceClassification.from_pretrained(copied_base)
    model.to(kept).save_pretrained(copied_base)
    short = recipe.model_copy(update={"base": str(copied_base), "epochs": 1})
    short.train(corpus, copied_base.parent / "out", seed=7, balanced=False)
    weights = load_file(copied_base.parent / "out" / "model.safetensors").values()
    assert any(not torch.equal(value, value.to(kept).float()) for value in weights)


@pytest.mark.parametrize(
    ("split", "differs"), [("train", True), ("validation", True), ("transfer", False)]
)
def test_finetune_digest_sees_gold_rows_but_no_transfer_rows(recipe, corpus, split, differs):
    fewer = corpus.splits[split].take(np.arange(5))
    other = replace(corpus, splits={**corpus.splits, split: fewer})
    assert (
        recipe.digest(corpus, 7, balanced=False) != recipe.digest(other, 7, balanced=False)
    ) is differs


def test_finetune_digest_sees_seed_settings_and_base(recipe, corpus, copied_base):
    copied = recipe.model_copy(update={"base": str(copied_base)})
    before = recipe.digest(corpus, 7, balanced=False)
    assert copied.digest(corpus, 7, balanced=False) == before
    change_weights(copied_base)
    longer = recipe.model_copy(update={"epochs": 9})
    others = [(recipe, 8, False), (longer, 7, False), (copied, 7, False), (recipe, 7, True)]
    assert before not in [teacher.digest(corpus, *rest) for teacher, *rest in others]


def test_ready_digest_sees_weights_and_max_length(copied_base, corpus):
    teacher = TransformersTeacher(model=str(copied_base), max_length=16)
    longer = teacher.model_copy(update={"max_length": 17})
    before = teacher.digest(corpus, 0, balanced=False)
    assert longer.digest(corpus, 0, balanced=False) != before
    change_weights(copied_base)
    assert teacher.digest(corpus, 0, balanced=False) != before


def check_classes(teacher, classes, problem):
    teacher.check_rows(Corpus({}, classes, problem=problem), RowFormat())


def test_ready_teacher_with_other_classes_is_refused(tiny_base):
    teacher = TransformersTeacher(model=str(tiny_base))
    check_classes(teacher, ("fish", "cats", "dogs"), "single_label")
    with pytest.raises(InputError, match=r"cats, dogs, fish; the data has cats, cows"):
        check_classes(teacher, ("cats", "cows"), "single_label")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("multi_label_classification", "single_label"),
        ("single_label_classification", "multi_label"),
    ],
)
def test_ready_teacher_of_another_problem_is_refused(copied_base, said, problem):
    settings = copied_base / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"problem_type": said}))
    teacher = TransformersTeacher(model=str(copied_base))
    with pytest.raises(InputError, match=f"is of {said}; the configuration says .*{problem}"):
        check_classes(teacher, CLASSES, problem)


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_ready_teacher_that_tells_no_problem_is_taken_at_the_users_word(tiny_base, problem):
    assert "problem_type" not in json.loads((tiny_base / "config.json").read_text())
    check_classes(TransformersTeacher(model=str(tiny_base)), CLASSES, problem)


MOODS = {
    "calm": {"purr", "whisker", "kitten"},
    "funny": {"meow", "claw", "bark", "leash"},
    "loud": set(WORDS["fish"]),
    "sad": {"house", "today"},
}


def mark_moods(corpus):
    """The same texts with other labels: any number of four, told by the words in them."""
    splits = {}
    for name, split in corpus.splits.items():
        words = [set(text.split()) for text in split.texts]
        gold = [[bool(marks & row) for marks in MOODS.values()] for row in words]
        splits[name] = Split(split.texts, np.array(gold, np.int64))
    return Corpus(splits, tuple(MOODS), problem="multi_label")


def test_finetuning_on_several_labels_gives_a_classifier_of_several_labels(
    recipe, corpus, tmp_path
):
    several = mark_moods(corpus)
    short = recipe.model_copy(update={"epochs": 5})
    curve = short.train(several, tmp_path, seed=7, balanced=False)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.id2label == dict(enumerate(MOODS))
    held_out = several.splits["held_out"]
    said = answer_plainly(tmp_path, held_out.texts) > 0
    always = held_out.gold.mean(axis=0) > 0.5
    assert np.mean(said == held_out.gold) > np.mean(always == held_out.gold) + 0.1
    assert curve[-1]["validation/macro_f1"] > 0.6


def test_a_base_whose_head_has_other_classes_gets_a_new_one(recipe, corpus, tmp_path):
    short = recipe.model_copy(update={"epochs": 1})
    short.train(mark_moods(corpus), tmp_path, seed=7, balanced=False)
    assert load_file(tmp_path / "model.safetensors")["classifier.bias"].shape == (4,)


@pytest.mark.parametrize("balanced", [False, True])
def test_balanced_finetuning_says_the_rare_class_more_often(recipe, corpus, tmp_path, balanced):
    train = corpus.splits["train"]
    rare = np.flatnonzero(train.gold == 2)[:6]
    rows = np.concatenate([np.flatnonzero(train.gold != 2), rare])
    fewer = replace(corpus, splits={**corpus.splits, "train": train.take(rows)})
    short = recipe.model_copy(update={"epochs": 1})
    short.train(fewer, tmp_path, seed=7, balanced=balanced)
    logits = answer_plainly(tmp_path, corpus.splits["held_out"].texts)
    told = torch.softmax(torch.from_numpy(logits), dim=1)[:, 2].mean()
    assert bool(told > 0.22) is balanced


def test_hub_id_without_revision_is_refused(written):
    written["teacher"] = {"kind": "transformers", "model": "someone/some-model"}
    with pytest.raises(InputError, match="revision"):
        check_config(parse_config(written, "test"))


def test_folder_without_config_is_refused(written, copied_base):
    (copied_base / "config.json").unlink()
    written["teacher"]["base"] = str(copied_base)
    with pytest.raises(InputError, match=r"no config\.json"):
        check_config(parse_config(written, "test"))


def replace_tokenizer(folder, tokenizer):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(("kind", "key"), [("finetune", "base"), ("transformers", "model")])
def test_a_model_whose_tokenizer_has_no_fast_implementation_is_refused(
    written, copied_base, kind, key
):
    written["teacher"] = {"kind": kind, key: str(copied_base), "max_length": 16}
    replace_tokenizer(copied_base, ByT5Tokenizer())
    with pytest.raises(InputError) as caught:
        check_config(parse_config(written, "test"))
    said = f"Model {copied_base} has a ByT5Tokenizer, which has no fast implementation"
    assert str(caught.value).startswith(said)


def test_a_model_whose_tokenizer_cannot_pad_is_refused(written, copied_base):
    tokenizer = AutoTokenizer.from_pretrained(copied_base)
    tokenizer.pad_token = None
    replace_tokenizer(copied_base, tokenizer)
    written["teacher"] = {"kind": "finetune", "base": str(copied_base), "max_length": 16}
    with pytest.raises(InputError, match="has no padding token, so rows cannot be read together"):
        check_config(parse_config(written, "test"))


def test_a_model_whose_tokenizer_is_broken_is_refused_in_one_line(written, copied_base):
    (copied_base / "tokenizer.json").write_text("{")
    written["teacher"]["base"] = str(copied_base)
    with pytest.raises(InputError) as caught:
        check_config(parse_config(written, "test"))
    assert str(caught.value).startswith(f"The tokenizer of {copied_base} cannot be loaded: ")
    assert "\n" not in str(caught.value)


def write_answers(folder, **changes):
    values = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    columns = {"text": ["one", "two"], **dict(zip(CLASSES, values.T, strict=True)), **changes}
    given = {key: value for key, value in columns.items() if value is not None}
    pd.DataFrame(given).to_parquet(folder / "answers.parquet")
    return str(folder / "answers.parquet")


def test_saved_probabilities_come_back_by_softmax_in_the_order_of_the_data(tmp_path):
    teacher = SavedTeacher(path=write_answers(tmp_path))
    order = ("fish", "cats", "dogs")
    texts, logits, classes = saved.read_answers(teacher, "text", order)
    probabilities = torch.softmax(torch.from_numpy(logits), dim=1)
    assert (texts, classes) == (["one", "two"], order)
    np.testing.assert_allclose(probabilities, [[0.25, 0.5, 0.25], [0, 0, 1]], atol=1e-5)


def test_saved_logits_come_back_as_they_were(tmp_path):
    path = write_answers(tmp_path, cats=[3.5, -1.0])
    _, logits, classes = saved.read_answers(SavedTeacher(path=path, values="logits"), "text", None)
    assert classes == CLASSES
    np.testing.assert_array_equal(logits, np.float32([[3.5, 0.25, 0.25], [-1, 1, 0]]))


@pytest.mark.parametrize(
    ("changes", "values", "said"),
    [
        ({"dogs": [0.25, np.nan]}, "logits", r"NaN .* 1 rows \(row 1\)"),
        ({"dogs": [0.25, 1e39]}, "logits", r"infinite values in 1 rows \(row 1\)"),
        ({"dogs": [np.inf, np.nan]}, "probabilities", r"2 rows \(row 0, 1\)"),
        ({"dogs": [0.25, 0.9]}, "probabilities", r"sum to one in 1 rows \(row 1\)"),
        ({"cats": [-0.5, 0.0], "dogs": [1.25, 1.0]}, "probabilities", r"\(row 0\)"),
        ({"dogs": None}, "probabilities", "cats, fish; the data has cats, dogs, fish"),
        ({"text": None}, "probabilities", "no column 'text'"),
        ({"dogs": ["much", "little"]}, "probabilities", "no numbers"),
    ],
)
def test_broken_saved_answers_are_refused(tmp_path, changes, values, said):
    teacher = SavedTeacher(path=write_answers(tmp_path, **changes), values=values)
    with pytest.raises(InputError, match=said):
        saved.read_answers(teacher, "text", CLASSES)


def write_twice(folder, first, second):
    """Two answers to `one`, as rows 0 and 2, and one to `two`."""
    values = zip(first, [0.1, 0.8, 0.1], second, strict=True)
    columns = dict(zip(CLASSES, values, strict=True))
    return write_answers(folder, text=["one", "two", "one"], **columns)


def test_saved_answers_that_contradict_each_other_are_refused_with_their_rows(tmp_path):
    path = write_twice(tmp_path, [0.9, 0.05, 0.05], [0.05, 0.9, 0.05])
    with pytest.raises(InputError, match=r"answer 1 texts twice, differently \(row 0 and 2\)"):
        saved.read_answers(SavedTeacher(path=path), "text", CLASSES)


def test_saved_answers_that_are_given_twice_are_one(tmp_path):
    path = write_twice(tmp_path, [0.9, 0.05, 0.05], [0.901, 0.049, 0.05])
    assert saved.read_answers(SavedTeacher(path=path), "text", CLASSES)[0] == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("problem", "values", "said"),
    [
        ("single_label", [[0.9, 0.05, 0.05], [0, 1, 0]], True),
        ("single_label", [[0.9, 0.5, 0.05], [0, 1, 0]], False),
        ("single_label", [[2.0, -1.5, 0.5], [0, 1, 0]], False),
        ("multi_label", [[0.9, 0.5, 0.05], [0, 1, 1]], True),
        ("multi_label", [[0.9, 0.5, -0.05], [0, 1, 1]], False),
    ],
)
def test_logits_that_look_like_probabilities_are_told(problem, values, said):
    logits = np.float32(values)
    found = saved.find_probabilities(SavedTeacher(path="p", values="logits"), logits, problem)
    assert ["look like probabilities" in one.text for one in found] == [True][:said]
    assert {one.rank for one in found} <= {Rank.ACT}
    assert saved.find_probabilities(SavedTeacher(path="p"), logits, problem) == []


def test_check_tells_of_probabilities_declared_as_logits(written, data_folder, tmp_path):
    frames = [pd.read_parquet(path) for path in data_folder.glob("*.parquet")]
    texts = pd.concat(frames)["text"].tolist()
    path = write_answers(tmp_path, text=texts, **dict.fromkeys(CLASSES, [1 / 3] * len(texts)))
    written["teacher"] = {"kind": "saved", "path": path, "values": "logits"}
    written["students"] = [{"family": "bag_of_words"}]
    corpus = check_config(parse_config(written, "test"))
    assert "look like probabilities" in corpus.findings[-1].text


@pytest.mark.parametrize(("sure", "told"), [(1.0, True), (0.98, False)])
def test_check_tells_of_saved_answers_that_are_hard_labels(
    written, data_folder, tmp_path, sure, told
):
    frames = [pd.read_parquet(path) for path in data_folder.glob("*.parquet")]
    texts = pd.concat(frames)["text"].tolist()
    rest = (1 - sure) / 2
    path = write_answers(tmp_path, text=texts, cats=sure, dogs=rest, fish=rest)
    written["teacher"] = {"kind": "saved", "path": path}
    written["students"] = [{"family": "bag_of_words"}]
    assert (ONE_HOT in check_config(parse_config(written, "test")).findings) is told


def test_saved_probabilities_of_several_labels_need_not_sum_to_one(tmp_path):
    columns = {"cats": [0.9, 0.0], "dogs": [0.8, 0.5], "fish": [0.0, 1.0]}
    teacher = SavedTeacher(path=write_answers(tmp_path, **columns))
    with pytest.raises(InputError, match="sum to one in 2 rows"):
        saved.read_answers(teacher, "text", CLASSES)
    _, logits, _ = saved.read_answers(teacher, "text", CLASSES, "multi_label")
    assert np.isfinite(logits).all()
    probabilities = torch.sigmoid(torch.from_numpy(logits))
    np.testing.assert_allclose(probabilities, [[0.9, 0.8, 0], [0, 0.5, 1]], atol=1e-5)


@pytest.mark.parametrize("dogs", [[1.2, 0.5], [-0.1, 0.5]])
def test_what_is_no_probability_of_several_labels_is_refused(tmp_path, dogs):
    teacher = SavedTeacher(path=write_answers(tmp_path, dogs=dogs))
    with pytest.raises(InputError, match=r"no probabilities in 1 rows \(row 0\)"):
        saved.read_answers(teacher, "text", CLASSES, "multi_label")


def test_saved_digest_sees_file_values_and_problem(tmp_path, corpus):
    path = write_answers(tmp_path)
    several = replace(corpus, problem="multi_label")
    logits = SavedTeacher(path=path, values="logits")
    before = SavedTeacher(path=path).digest(corpus, 0, balanced=False)
    others = [(logits, corpus), (SavedTeacher(path=path), several)]
    found = [teacher.digest(rows, 0, balanced=False) for teacher, rows in others]
    write_answers(tmp_path, cats=[0.4, 0.0])
    found.append(SavedTeacher(path=path).digest(corpus, 0, balanced=False))
    assert len({before, *found}) == 4


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_saved_answers_that_cannot_be_read_are_refused(tmp_path, content):
    path = tmp_path / "answers.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"answers\.parquet"):
        saved.read_answers(SavedTeacher(path=str(path)), "text", None)


def test_saved_answers_that_lack_rows_of_the_data_are_refused(written, data_folder, tmp_path):
    texts = pd.read_parquet(data_folder / "train.parquet")["text"].tolist()
    path = write_answers(tmp_path, text=texts, **dict.fromkeys(CLASSES, [1 / 3] * len(texts)))
    written["teacher"] = {"kind": "saved", "path": path}
    written["students"] = [{"family": "bag_of_words"}]
    with pytest.raises(InputError, match="lack 100 rows of held_out"):
        check_config(parse_config(written, "test"))
