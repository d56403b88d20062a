import answering
import numpy as np
import pandas as pd
import pytest
from answering import by_words, register_words
from samples import CLASSES

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.problems.classification import probabilities
from distill_tasks.results.teacher import make_teacher
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import check_config
from distill_tasks.teachers.base import ONE_HOT

WORDS = {"kind": "callable", "function": "answering:by_words"}
COUNTED = {"kind": "callable", "function": "answering:counted"}
PARTIAL = {"kind": "callable", "function": "answering:all_but_cats"}
BACKWARDS = {"kind": "callable", "function": "answering:backwards"}


def configure(written, *members, weights=(1.0, 1.0)):
    pairs = zip(members, weights, strict=True)
    ensemble = [{"teacher": teacher, "weight": weight} for teacher, weight in pairs]
    written["teacher"] = {"kind": "ensemble", "members": ensemble}
    written["students"] = [{"family": "bag_of_words"}]
    return parse_config(written, "test")


def alone(written, teacher):
    written |= {"teacher": teacher, "students": [{"family": "bag_of_words"}]}
    return parse_config(written, "test")


def label_all(config):
    corpus = check_config(config)
    teacher = make_teacher(config, corpus)
    return corpus, label_rows(config, corpus, teacher)


@pytest.fixture
def saved(data_folder):
    """A saved teacher with answers of its own to every row, in an order of its own."""
    frames = [pd.read_parquet(path) for path in data_folder.glob("*.parquet")]
    texts = pd.concat(frames)["text"].unique()
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], len(texts))
    table = pd.DataFrame(shares, columns=["fish", "cats", "dogs"]).assign(text=texts)
    path = data_folder.parent / "answers.parquet"
    table.to_parquet(path)
    return {"kind": "saved", "path": str(path)}, table.set_index("text")[list(CLASSES)]


def test_probabilities_are_averaged_by_weight_whatever_the_order_of_classes(written, saved):
    teacher, said = saved
    config = configure(written, BACKWARDS, teacher, weights=(3.0, 1.0))
    corpus, labels = label_all(config)
    assert corpus.classes == CLASSES[::-1]
    shares = probabilities(labels.open().read(corpus.texts).logits, "single_label")[:, ::-1]
    expected = 0.75 * by_words(corpus.texts) + 0.25 * said.loc[corpus.texts].to_numpy()
    np.testing.assert_allclose(shares, expected, atol=1e-5)


def test_several_labels_are_averaged_each_by_itself(written, data_folder):
    for path in data_folder.glob("*.parquet"):
        table = pd.read_parquet(path)
        if "label" in table:
            table.assign(label=table["label"] + "|animal").to_parquet(path)
    paths = []
    for number, share in enumerate((0.9, 0.6)):
        texts = pd.concat(map(pd.read_parquet, data_folder.glob("*.parquet")))["text"].unique()
        classes = ("animal", *CLASSES)
        said = pd.DataFrame({"text": texts, **dict.fromkeys(classes, share)})
        paths.append(data_folder.parent / f"answers-{number}.parquet")
        said.to_parquet(paths[-1])
    written["problem"] = "multi_label"
    members = [{"kind": "saved", "path": str(path)} for path in paths]
    corpus, labels = label_all(configure(written, *members, weights=(1.0, 3.0)))
    said = probabilities(labels.open().read(corpus.texts).logits, "multi_label")
    np.testing.assert_allclose(said, 0.25 * 0.9 + 0.75 * 0.6, atol=1e-5)


@pytest.mark.parametrize("alone_first", [True, False])
def test_a_member_is_asked_once_whether_alone_or_not(written, alone_first):
    runs = [alone(written, COUNTED), configure(written, BACKWARDS, COUNTED)]
    corpus = check_config(runs[0])
    answering.ASKED.clear()
    for config in runs if alone_first else runs[::-1]:
        label_rows(config, corpus, make_teacher(config, corpus))
    assert sorted(answering.ASKED) == sorted(corpus.texts)


@pytest.mark.parametrize("alone_first", [True, False])
def test_a_row_that_one_member_leaves_unanswered_is_left_unanswered(written, alone_first):
    runs = [alone(written, PARTIAL), configure(written, WORDS, PARTIAL)]
    corpus = check_config(runs[0])
    references = [
        label_rows(config, corpus, make_teacher(config, corpus))
        for config in (runs if alone_first else runs[1:])
    ]
    stored = references[-1].open()
    cats = by_words(corpus.texts).argmax(axis=1) == 0
    answered = {text for text, is_cat in zip(corpus.texts, cats, strict=True) if not is_cat}
    transfer = corpus.splits["transfer"].texts
    assert set(transfer) - set(stored.missing(transfer)) == answered & set(transfer)
    held_out = corpus.splits["held_out"].texts
    unknown = (stored.read(held_out).logits == 0).all(axis=1)
    assert unknown.tolist() == [text not in answered for text in held_out]


def test_the_digest_knows_members_and_shares_but_not_their_order_or_scale(written):
    corpus = check_config(alone(written, WORDS))

    def read(*members, **weights):
        return configure(written, *members, **weights).teacher.digest(corpus, 0, False)

    first = read(WORDS, BACKWARDS, weights=(1.0, 3.0))
    assert read(BACKWARDS, WORDS, weights=(6.0, 2.0)) == first
    assert read(WORDS, BACKWARDS, weights=(3.0, 1.0)) != first
    assert read(WORDS, COUNTED, weights=(1.0, 3.0)) != first


def test_a_member_whose_alias_moves_makes_another_ensemble(written, tmp_path):
    uri = written["tracking"]["uri"]
    register_words(uri, tmp_path, seed=1)
    config = configure(written, WORDS, {"kind": "mlflow", "model": "models:/words@teacher"})
    corpus, labels = label_all(config)
    register_words(uri, tmp_path, seed=2)
    again = label_rows(config, corpus, make_teacher(config, corpus))
    assert (again.asked, again.teacher != labels.teacher) == (len(corpus.texts), True)


def test_the_mean_of_two_that_say_labels_is_not_told_to_be_one_hot(written, saved):
    path = saved[0]["path"]
    table = pd.read_parquet(path)
    table.assign(said=table[list(CLASSES)].idxmax(axis=1))[["text", "said"]].to_parquet(path)
    labels = {"kind": "saved", "path": path, "label_column": "said"}
    assert ONE_HOT in check_config(alone(written, labels)).findings
    notes = check_config(configure(written, labels, WORDS)).findings
    assert not [note for note in notes if "one-hot" in note.text]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("finetune", "cannot be of kind finetune; it is trained first: train it in a run of its"),
        ("ensemble", "cannot be of kind ensemble; its members can stand here themselves"),
    ],
)
def test_members_that_are_not_ready_are_refused_with_what_to_do(written, kind, said):
    with pytest.raises(InputError, match=said) as caught:
        configure(written, WORDS, {"kind": kind, "base": "x"})
    assert "\n" not in str(caught.value)


def test_errors_say_which_member_is_at_fault(written):
    lost = {"kind": "saved", "path": "lost.parquet"}
    with pytest.raises(InputError, match=r"^Member 2 of the teacher \(saved\): Saved answers lost"):
        check_config(configure(written, WORDS, lost))


def test_members_of_different_classes_are_refused(written):
    other = WORDS | {"classes": ["cats", "wolves"]}
    with pytest.raises(InputError, match="different classes: cats, dogs, fish; and cats, wolves"):
        check_config(configure(written, BACKWARDS, other))


def test_one_member_is_no_ensemble(written):
    with pytest.raises(InputError, match="must be a list of at least 2 items"):
        configure(written, WORDS, weights=(1.0,))


def test_a_transformer_is_a_member_though_no_student_starts_from_it(written, ready_teacher):
    config = configure(written, ready_teacher, WORDS)
    assert config.teacher.start is None
    corpus, labels = label_all(config)
    assert labels.asked == len(corpus.texts)
