from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import open_run
from samples import CLASSES, WORDS, make_rows
from sklearn.metrics import accuracy_score, f1_score

from distill_tasks.config import parse_config
from distill_tasks.core.errors import PotstillError
from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.reporting.data_report import inspect_corpus
from distill_tasks.results.grid import Trial, first_trials, further_trials
from distill_tasks.results.trained import train_one
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.evaluate import score_all
from distill_tasks.students import controls

STUDENT = "bag-of-words-100"
ON_GOLD = f"{STUDENT}-on-gold-seed-7"
GOLD_FIGURES = {
    *(f"quality/{name}" for name in ("accuracy", "macro_f1", "weighted_f1")),
    *(f"calibration/{name}" for name in ("ece", "nll", "brier")),
    "fidelity/retention",
}
FIGURES = GOLD_FIGURES | {f"fidelity/{name}" for name in ("agreement", "kl", "js", "top_overlap")}


@pytest.fixture
def light(written, data_folder):
    """A saved teacher that is wrong in one row of ten, and one light student."""
    texts = pd.concat([pd.read_parquet(path) for path in data_folder.glob("*.parquet")])["text"]
    true = [next(n for n, c in enumerate(CLASSES) if set(t.split()) & set(WORDS[c])) for t in texts]
    said = (np.array(true) + (np.arange(len(texts)) % 10 == 0)) % 3
    answers = pd.DataFrame(0.05 + 0.85 * np.eye(3)[said], columns=list(CLASSES))
    answers.assign(text=texts.to_numpy()).to_parquet(data_folder.parent / "answers.parquet")
    written["teacher"] = {"kind": "saved", "path": str(data_folder.parent / "answers.parquet")}
    written["students"] = [{"family": "bag_of_words", "max_features": 100}]
    return parse_config(written, "test")


@pytest.fixture
def corpus(light):
    return read_corpus(light.data, light.seed)


def prepare(config, corpus, trials):
    """Label and train; return what scores a split, and the students by name."""
    run = open_run(config, corpus)
    students = [train_one(run, trial) for trial in trials]

    def score(split="held_out", students=students):
        return score_all(run, students, split)

    return score, {student.name: student for student in students}


@pytest.fixture
def run(light):
    """Prepare the light student and its control on a corpus."""

    def run(corpus, config=light):
        (student,) = config.students
        trials = [Trial(student, 7), Trial(student, 7, distilled=False, served=False)]
        if not corpus.splits["train"].has_gold:
            trials.pop()
        return prepare(config, corpus, trials)

    return run


def test_teacher_controls_and_students_are_scored_on_both_splits(run, corpus):
    score, _ = run(corpus)
    for split, rows in (("validation", 18), ("held_out", 100)):
        scores = score(split)
        assert scores.split == split
        names = ["teacher", "words-on-gold", "majority-class", STUDENT, ON_GOLD]
        assert list(scores.models) == names
        assert (list(scores.candidates), list(scores.on_gold)) == ([STUDENT], [STUDENT])
        for card in scores.models.values():
            assert card.split == split
            assert set(card.figures) == FIGURES
            assert {figure.rows for figure in card.figures.values()} == {rows}


def test_of_a_single_seed_the_candidate_is_its_student(run, corpus):
    scores = run(corpus)[0]()
    assert scores.candidates[STUDENT] == scores.models[STUDENT]
    assert scores.on_gold[STUDENT] == scores.models[ON_GOLD]
    assert scores.models[STUDENT].spread == {}


def test_of_a_variant_the_served_seed_stands_among_the_models_and_all_seeds_are_its_candidate(
    run, corpus
):
    score, students = run(corpus)
    name = f"{STUDENT}-onnx"
    served = replace(students[STUDENT], name=name, candidate=name, variant="onnx")
    weights = {"calibration": Calibration(temperature=2.0), "digest": "another seed"}
    seed = replace(served, name=f"{name}-seed-8", seed=8, **weights)
    scores = score(students=[*students.values(), served, seed])
    assert list(scores.models)[3:] == [STUDENT, ON_GOLD, name]
    assert (list(scores.candidates), list(scores.on_gold)) == ([STUDENT, name], [STUDENT])
    assert scores.models[name] == scores.models[STUDENT]
    low, high = scores.candidates[name].spread["calibration/nll"]
    assert low < scores.candidates[name].values["calibration/nll"] < high


def test_every_figure_lies_in_its_own_interval(run, corpus):
    for card in run(corpus)[0]().models.values():
        for name, figure in card.figures.items():
            assert figure.low <= figure.value <= figure.high, name


def test_the_teacher_retains_and_agrees_with_itself_wholly(run, corpus):
    score, _ = run(corpus)
    for split in ("validation", "held_out"):
        card = score(split).models["teacher"]
        assert card.values["fidelity/retention"] == 1
        assert card.values["fidelity/agreement"] == 1
        assert card.values["fidelity/kl"] == pytest.approx(0, abs=1e-9)
        assert 0.8 < card.values["quality/accuracy"] < 1


def test_figures_of_the_student_are_those_of_its_served_answers(run, corpus):
    score, students = run(corpus)
    models = score().models
    card, teacher = models[STUDENT], models["teacher"]
    held_out = corpus.splits["held_out"]
    answers = open_model(students[STUDENT].folder).answer(held_out.texts)
    said = np.array([CLASSES.index(answer.label) for answer in answers])
    right = said == held_out.gold
    assert card.values["quality/accuracy"] == pytest.approx(right.mean())
    assert card.values["quality/macro_f1"] == pytest.approx(
        f1_score(held_out.gold, said, average="macro"), abs=1e-6
    )
    told = np.array(
        [
            answer.probabilities[CLASSES[gold]]
            for answer, gold in zip(answers, held_out.gold, strict=True)
        ]
    )
    assert card.values["calibration/nll"] == pytest.approx(-np.log(told).mean(), rel=1e-4)
    assert card.values["fidelity/retention"] == pytest.approx(
        right.mean() / teacher.values["quality/accuracy"]
    )
    assert card.values["fidelity/kl"] > 0
    assert [row["class"] for row in card.per_class] == list(CLASSES)
    assert sum(row["rows"] for row in card.per_class) == 100


def test_the_controls_without_a_student_are_no_better_than_they_can_be(run, corpus):
    models = run(corpus)[0]().models
    gold = corpus.splits["held_out"].gold
    often = np.bincount(corpus.splits["train"].gold).argmax()
    majority = models["majority-class"]
    assert majority.values["quality/accuracy"] == pytest.approx(np.mean(gold == often))
    assert models["words-on-gold"].values["quality/accuracy"] > 0.7


def test_scorecards_come_back_equal_from_the_store(run, corpus):
    score, _ = run(corpus)
    first, second = score(), score()
    assert (first.reused, second.reused) == (False, True)
    assert first.models == second.models
    assert first.candidates == second.candidates
    assert first.on_gold == second.on_gold


def test_a_model_that_was_scored_is_not_opened_again(run, corpus):
    score, students = run(corpus)
    before = score()
    for student in students.values():
        (student.folder / "weights.npz").unlink()
    assert score().models == before.models


def test_other_rows_and_another_metric_are_scored_again(run, corpus, written):
    run(corpus)[0]()
    fewer = corpus.splits["held_out"].take(np.arange(50))
    again = run(replace(corpus, splits={**corpus.splits, "held_out": fewer}))[0]()
    assert not again.reused
    assert again.models[STUDENT].figures["quality/accuracy"].rows == 50
    other = run(corpus, parse_config(written | {"select": {"metric": "macro_f1"}}, "test"))[0]()
    assert not other.reused
    assert other.models[STUDENT].quality == other.models[STUDENT].figures["quality/macro_f1"]


def test_without_gold_there_is_fidelity_but_neither_accuracy_nor_control(run, corpus):
    bare = {n: Split(s.texts, np.full(len(s), NO_LABEL)) for n, s in corpus.splits.items()}
    scores = run(replace(corpus, splits=bare))[0]()
    assert list(scores.models) == ["teacher", STUDENT]
    assert scores.on_gold == {}
    card = scores.models[STUDENT]
    assert set(card.figures) == FIGURES - GOLD_FIGURES
    assert card.per_class == []
    assert card.quality == card.figures["fidelity/agreement"]
    assert card.quality.value > 0.6


def test_held_out_alone_may_lack_gold(run, corpus):
    held_out = corpus.splits["held_out"]
    bare = Split(held_out.texts, np.full(len(held_out), NO_LABEL))
    score, _ = run(replace(corpus, splits={**corpus.splits, "held_out": bare}))
    assert set(score("held_out").models[ON_GOLD].figures) == FIGURES - GOLD_FIGURES
    assert set(score("validation").models[ON_GOLD].figures) == FIGURES


def test_with_a_precision_to_answer_with_coverage_and_precision_are_scored(run, corpus, written):
    written["evaluate"] = {"answer_precision": 0.95}
    score, students = run(corpus, parse_config(written, "test"))
    card = score().models[STUDENT]
    held_out = corpus.splits["held_out"]
    answers = open_model(students[STUDENT].folder).answer(held_out.texts)
    spoken = np.array([not answer.abstain for answer in answers])
    right = [a.label == CLASSES[g] for a, g in zip(answers, held_out.gold, strict=True)]
    assert card.values["answering/coverage"] == pytest.approx(spoken.mean())
    assert 0 < spoken.mean() < 1
    assert card.values["answering/precision"] == pytest.approx(np.array(right)[spoken].mean())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused_by_the_name_of_the_student(run, corpus, value):
    score, students = run(corpus)
    folder = students[STUDENT].folder
    weights = dict(np.load(folder / "weights.npz"))
    weights["output_bias"][0] = value
    np.savez(folder / "weights.npz", **weights)
    with pytest.raises(PotstillError, match=rf"{STUDENT} answered NaN or infinity in 100 of 100"):
        score()


TRAITS = ("odd", "pet", "sly")


def make_traits(count, seed):
    """Rows with any number of labels: what their animal is, and odd where a house is named."""
    rows = make_rows(count, seed)
    animal = rows["label"].map({"cats": ["pet", "sly"], "dogs": ["pet"], "fish": []})
    odd = ["house" in text or "today" in text for text in rows["text"]]
    return rows.assign(label=[a + ["odd"] * o for a, o in zip(animal, odd, strict=True)])


@pytest.fixture(scope="module")
def several(tiny_base, tmp_path_factory):
    """A teacher of several labels, and two students with a second seed and their controls."""
    folder = tmp_path_factory.mktemp("several")
    rows = make_traits(900, seed=1)
    parts = {"train": rows[:300], "held_out": rows[300:500], "transfer": rows[500:][["text"]]}
    for name, part in parts.items():
        part.to_parquet(folder / f"{name}.parquet")
    written = {
        "name": "traits",
        "problem": "multi_label",
        "work_dir": str(folder / "work"),
        "data": {"validation_share": 0.2}
        | {name: str(folder / f"{name}.parquet") for name in parts},
        "teacher": {
            "kind": "finetune",
            "base": str(tiny_base),
            "max_length": 16,
            "learning_rate": 0.002,
            "batch_rows": 8,
        },
        "students": [
            {"family": "static", "dimensions": 16},
            {"family": "bag_of_words", "max_features": 500},
        ],
        "select": {"metric": "macro_f1"},
        "evaluate": {"seeds": 2},
        "registry": {"model": "traits"},
    }
    config = parse_config(written, "test")
    corpus = read_corpus(config.data, config.seed, problem="multi_label")
    trials = [
        *first_trials(config),
        *(t for s in config.students for t in further_trials(config, s)),
    ]
    score, students = prepare(config, corpus, trials)
    return corpus, students, score("held_out"), score("validation")


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "weighted_f1", "micro_f1"])
def test_of_several_labels_teacher_and_students_beat_the_majority_clearly(several, metric):
    corpus, students, held_out, _ = several
    gold = corpus.splits["held_out"].gold
    # Whatever one says of every row: each set of labels in turn.
    constant = max(
        by_hand(metric, gold, np.tile(row, (len(gold), 1))) for row in np.unique(gold, axis=0)
    )
    majority = held_out.models["majority-class"].values[f"quality/{metric}"]
    assert majority <= constant + 1e-6
    for name in ("teacher", *held_out.candidates):
        card = held_out.models[name]
        assert card.figures[f"quality/{metric}"].low > constant + 0.05, name
    for name in held_out.candidates:
        answers = open_model(students[name].folder).answer(corpus.splits["held_out"].texts)
        said = [[trait in answer.label.split("|") for trait in TRAITS] for answer in answers]
        found = held_out.models[name].values[f"quality/{metric}"]
        assert found == pytest.approx(by_hand(metric, gold, np.array(said)), abs=1e-6)


def by_hand(metric, gold, said):
    """The metric by scikit-learn."""
    if metric == "accuracy":
        return accuracy_score(gold, said)
    return f1_score(gold, said, average=metric.removesuffix("_f1"), zero_division=0)


def test_of_several_seeds_a_candidate_has_the_mean_and_the_spread(several):
    _, students, held_out, validation = several
    static, words = held_out.candidates
    names = [name for name in students if students[name].candidate == static]
    for scores in (held_out, validation):
        for distilled, cards in ((True, scores.candidates), (False, scores.on_gold)):
            seeds = [scores.models[name] for name in names if students[name].distilled is distilled]
            assert len(seeds) == 2
            values = [card.values["quality/macro_f1"] for card in seeds]
            card = cards[static]
            assert card.quality.value == pytest.approx(np.mean(values), abs=1e-6)
            assert card.spread["quality/macro_f1"] == pytest.approx((min(values), max(values)))
        assert scores.candidates[words] == scores.models[words]
        assert scores.on_gold[words].spread == {}
    assert held_out.models[names[0]].values != held_out.models[names[1]].values


def test_of_several_labels_all_classes_are_scored_and_every_interval_holds_its_figure(several):
    for scores in several[2:]:
        for name, card in scores.models.items():
            assert card.classes_scored == 3
            assert [row["class"] for row in card.per_class] == list(TRAITS)
            assert "quality/micro_f1" in card.figures
            for figure in card.figures.values():
                assert figure.low <= figure.value <= figure.high, name


def test_where_gold_has_no_words_there_are_no_words_on_gold(light, corpus):
    train = corpus.splits["train"]
    splits = {name: split for name, split in corpus.splits.items() if name != "transfer"}
    single = tuple(" ".join(text.replace(" ", "")) for text in train.texts)
    bare = replace(corpus, splits={**splits, "train": replace(train, texts=single)})
    answers = pd.read_parquet(light.teacher.path)
    spaced = answers.assign(text=[" ".join(text.replace(" ", "")) for text in answers["text"]])
    pd.concat([answers, spaced]).to_parquet(light.teacher.path)
    (warning,) = [w for w in inspect_corpus(bare, None, None).warnings if "words-on-gold" in w.text]
    assert "no words of two characters" in warning.text
    found = prepare(light, bare, [])[0]("held_out")
    assert set(found.models) == {"teacher", "majority-class"}


def test_the_bound_of_words_on_gold_is_told_and_makes_its_answers_another_ones(
    light, corpus, monkeypatch
):
    whole = prepare(light, corpus, [])[0]()
    assert not [w for w in inspect_corpus(corpus, None, None).warnings if "words-on-gold" in w.text]
    monkeypatch.setattr(controls, "MEMORY_GB", 1e-5)
    (warning,) = [
        w for w in inspect_corpus(corpus, None, None).warnings if "words-on-gold" in w.text
    ]
    assert "reads the 12 most frequent of" in warning.text
    bounded = prepare(light, corpus, [])[0]()
    accuracy = [
        scores.models["words-on-gold"].values["quality/accuracy"] for scores in (whole, bounded)
    ]
    assert accuracy[0] > accuracy[1]
