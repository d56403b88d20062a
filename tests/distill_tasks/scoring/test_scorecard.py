from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.special import rel_entr, softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss

from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.scorecard import (
    EvalSplit,
    Predictions,
    Scorecard,
    quality_statistic,
    score,
)

CLASSES = ("cats", "dogs", "fish", "owls")
ROWS = 200
F1_OF = {"macro_f1": "macro", "weighted_f1": "weighted", "micro_f1": "micro"}


def make_eval_split(problem, metric="accuracy", gold=True):
    """Return an evaluation split whose teacher is mostly right, and three seeds of a student."""
    generator = np.random.default_rng(0)
    if problem == "single_label":
        labels = generator.integers(3, size=ROWS)  # no owls
        truth = np.eye(4)[labels]
    else:
        labels = generator.integers(2, size=(ROWS, 4))
        labels[:, 3] = 0
        truth = labels
    noise = generator.normal(size=(4, ROWS, 4))
    teacher, *students = (4 * truth - 2 + noise * [[[1.0]], [[1.5]], [[1.5]], [[2.0]]]).astype(
        np.float32
    )
    split = Split(("text",) * ROWS, labels if gold else np.full(labels.shape, NO_LABEL))
    eval_split = EvalSplit(
        "held_out", split, Predictions(teacher, Calibration()), CLASSES, problem, metric
    )
    return eval_split, [Predictions(logits, Calibration()) for logits in students]


@pytest.fixture(scope="module", params=["single_label", "multi_label"])
def eval_split(request):
    return make_eval_split(request.param)


@pytest.fixture(scope="module")
def card(eval_split):
    return score(eval_split[0], eval_split[1][:1])


def test_quality_and_agreement_are_those_of_scikit_learn(eval_split, card):
    rows, (student, *_) = eval_split
    gold, said, distilled = rows.gold, rows.decide(student), rows.decide(rows.teacher)
    values = card.values
    assert values["quality/accuracy"] == pytest.approx(accuracy_score(gold, said))
    assert values["fidelity/agreement"] == pytest.approx(accuracy_score(distilled, said))
    retention = accuracy_score(gold, said) / accuracy_score(gold, distilled)
    assert values["fidelity/retention"] == pytest.approx(retention)
    present = np.flatnonzero(gold.any(axis=0))
    scored = {name.removeprefix("quality/") for name in values if name.endswith("_f1")}
    single = {"macro_f1", "weighted_f1"}  # the micro F1 of a single label is its accuracy
    assert scored == (single if rows.problem == "single_label" else set(F1_OF))
    for name in scored:
        labels = None if name == "micro_f1" else present
        expected = f1_score(gold, said, labels=labels, average=F1_OF[name], zero_division=0)
        assert values[f"quality/{name}"] == pytest.approx(expected, abs=1e-6)


def test_calibration_and_divergence_are_those_of_scikit_learn_and_scipy():
    eval_split, (student, *_) = make_eval_split("single_label")
    warm = Predictions(student.logits, Calibration(temperature=2.0))
    card = score(eval_split, [warm, student])
    assert card.temperature == 2
    values = score(eval_split, [warm]).values
    said = softmax(student.logits.astype(float) / 2, axis=1)
    likelihood = log_loss(eval_split.split.gold, said, labels=range(4))
    assert values["calibration/nll"] == pytest.approx(likelihood, rel=1e-5)
    plain, distilled = (
        softmax(x.astype(float), axis=1) for x in (student.logits, eval_split.teacher.logits)
    )
    divergence = rel_entr(distilled, plain).sum(axis=1).mean()  # of the logits as they are
    assert values["fidelity/kl"] == pytest.approx(divergence, rel=1e-5)


def test_every_figure_lies_within_its_interval_over_all_rows(card):
    for name, figure in card.figures.items():
        assert figure.low < figure.value < figure.high, name
        assert figure.rows == ROWS


def test_macro_f1_of_a_class_of_one_row_is_as_open_as_one_row_leaves_it():
    labels = (np.arange(ROWS) == 0).astype(int)
    split = Split(("text",) * ROWS, labels)
    right = Predictions(8 * np.eye(2, dtype=np.float32)[labels], Calibration())
    never = Predictions(8 * np.eye(2, dtype=np.float32)[0 * labels], Calibration())
    eval_split = EvalSplit("held_out", split, right, ("fine", "fraud"), "single_label", "macro_f1")
    for predictions in (right, never):
        figure = score(eval_split, [predictions]).quality
        assert 0 <= figure.low <= figure.value <= figure.high <= 1
        assert figure.low < 0.75 < figure.high  # the truth, were fraud found half the time
    assert score(eval_split, [right]).values["quality/macro_f1"] == 1


def test_the_teacher_agrees_with_itself_and_keeps_all_of_its_quality(eval_split):
    rows, _ = eval_split
    values = score(rows, [rows.teacher]).values
    same = ("fidelity/agreement", "fidelity/retention", "fidelity/top_overlap")
    assert [values[name] for name in same] == [1, 1, 1]
    assert [values["fidelity/kl"], values["fidelity/js"]] == pytest.approx([0, 0], abs=1e-6)


def test_several_seeds_are_scored_as_their_mean_with_their_spread(eval_split):
    rows, seeds = eval_split
    each = [score(rows, [one]).values for one in seeds]
    together = score(rows, seeds)
    for name, figure in together.figures.items():
        values = [one[name] for one in each]
        assert figure.value == pytest.approx(np.mean(values), abs=1e-6)
        if name in together.spread:
            assert together.spread[name] == pytest.approx((min(values), max(values)), abs=1e-6)
    assert set(together.figures) - set(together.spread) == {"fidelity/retention"}
    low, high = together.spread["quality/accuracy"]
    assert low < high


def test_a_single_seed_has_no_spread(card):
    assert card.spread == {}


def test_the_order_of_the_seeds_changes_no_figure(eval_split):
    rows, seeds = eval_split
    # The first never answers, so only the others say how often answers are right.
    mixed = [
        Predictions(one.logits, Calibration(answer_from=limit))
        for one, limit in zip(seeds, (2.0, 0.9, 0.8), strict=True)
    ]
    forwards, backwards = score(rows, mixed).values, score(rows, mixed[::-1]).values
    assert forwards == pytest.approx(backwards)
    assert "answering/precision" in forwards


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_without_gold_only_the_teacher_is_compared_with(problem):
    eval_split, seeds = make_eval_split(problem, metric="macro_f1", gold=False)
    card = score(eval_split, seeds)
    assert eval_split.gold is None
    assert {name.split("/")[0] for name in card.figures} == {"fidelity"}
    assert "fidelity/retention" not in card.figures
    assert card.quality == card.figures["fidelity/agreement"]
    assert (card.per_class, card.classes_scored) == ([], 0)


def test_a_class_without_rows_does_not_count_and_has_no_recall(card):
    assert card.classes_scored == 3
    owls = card.per_class[3]
    assert (owls["class"], owls["rows"], owls["recall"], owls["f1"]) == ("owls", 0, None, None)


def test_where_a_model_abstains_its_coverage_and_its_precision_are_scored(eval_split):
    rows, (student, *_) = eval_split
    sure = student.calibration.confidence(student.logits, rows.problem)
    limit = float(np.quantile(sure, 0.1))
    careful = Predictions(student.logits, Calibration(answer_from=limit))
    figures = score(rows, [careful]).figures
    right = (rows.decide(student) == rows.gold).all(axis=1)
    assert figures["answering/coverage"].value == pytest.approx((sure >= limit).mean())
    precision = figures["answering/precision"]
    assert precision.value == pytest.approx(right[sure >= limit].mean())
    assert precision.value > right.mean()
    assert precision.low < precision.value < precision.high


def test_a_model_that_never_answers_covers_nothing_and_one_that_always_does_is_not_scored(
    eval_split,
):
    rows, (student, *_) = eval_split
    silent = score(rows, [Predictions(student.logits, Calibration(answer_from=2.0))]).values
    assert silent["answering/coverage"] == 0
    assert "answering/precision" not in silent
    assert not any(name.startswith("answering/") for name in score(rows, [student]).values)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "weighted_f1", "micro_f1"])
@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_the_quality_of_a_card_is_the_statistic_of_the_metric_that_counts(problem, metric):
    eval_split, seeds = make_eval_split(problem, metric)
    card = score(eval_split, seeds[:2])
    once = np.ones((1, ROWS), np.float32)
    assert card.quality.value == pytest.approx(quality_statistic(eval_split, seeds[:2])(once)[0])
    expected = np.mean(
        [
            accuracy_score(eval_split.gold, eval_split.decide(one))
            if metric == "accuracy"
            else f1_score(
                eval_split.gold, eval_split.decide(one), average=F1_OF[metric], labels=range(3)
            )
            if metric != "micro_f1"
            else f1_score(eval_split.gold, eval_split.decide(one), average="micro")
            for one in seeds[:2]
        ]
    )
    assert card.quality.value == pytest.approx(expected, abs=1e-6)
    distilled = quality_statistic(eval_split, [eval_split.teacher])(once)[0]
    assert card.values["fidelity/retention"] == pytest.approx(expected / distilled, abs=1e-6)


def test_the_statistic_is_agreement_where_there_is_no_gold():
    eval_split, seeds = make_eval_split("multi_label", metric="macro_f1", gold=False)
    found = quality_statistic(eval_split, seeds)(np.ones((1, ROWS), np.float32))[0]
    assert found == pytest.approx(score(eval_split, seeds).values["fidelity/agreement"])


def test_thresholds_of_student_and_teacher_decide_what_each_of_them_said():
    eval_split, (student, *_) = make_eval_split("multi_label")
    eager = Calibration(thresholds=[0.01] * 4)
    before = score(eval_split, [student]).values
    after = score(eval_split, [Predictions(student.logits, eager)]).values
    assert after["fidelity/agreement"] < before["fidelity/agreement"]
    distilled = replace(eval_split, teacher=Predictions(student.logits, eager))
    both = score(distilled, [Predictions(student.logits, eager)]).values
    assert both["fidelity/agreement"] == 1


def test_a_card_comes_back_from_json(eval_split):
    rows, seeds = eval_split
    card = score(rows, seeds)
    adapter = TypeAdapter(Scorecard)
    assert adapter.validate_json(adapter.dump_json(card)) == card


def test_the_seed_of_the_draws_moves_only_the_ends(eval_split):
    rows, (student, *_) = eval_split
    first, again, other = (score(rows, [student], seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.values == other.values
    assert first.figures != other.figures
