import numpy as np
import pytest

from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.parity import ROUNDING, Parity, compare_to_reference
from distill_tasks.scoring.scorecard import EvalSplit, Predictions

CLASSES = ("cats", "dogs", "fish")
DROP = 0.01
"""The loss of quality that is allowed."""


def make_eval_split(gold, problem="single_label", metric="accuracy", teacher=None):
    """An evaluation split on rows of some gold, whose teacher is right about every row."""
    gold = np.asarray(gold)
    said = np.eye(3)[gold] if gold.ndim == 1 else gold
    split = Split(tuple(map(str, range(len(gold)))), gold)
    distilled = predictions(4 * said - 2) if teacher is None else teacher
    return EvalSplit("held_out", split, distilled, CLASSES, problem, metric)


def predictions(logits, **calibration):
    return Predictions(np.asarray(logits, np.float32), Calibration(**calibration))


def saying(classes, height=3.0):
    """The answers of a model that says these classes."""
    return predictions(height * np.eye(3)[np.asarray(classes)])


def mistaken(gold, wrong):
    """The gold classes, but others in some rows."""
    said = np.array(gold)
    said[wrong] = (said[wrong] + 1) % 3
    return said


def make_parity(variant="onnx_int8", gap=0.0, change=(0.0, 0.0, 0.0)):
    return Parity(variant, gap, 0, 100, Figure(*change, rows=100))


GOLD = np.arange(300) % 3


def test_known_values_are_those_computed_by_hand():
    eval_split = make_eval_split([0, 1, 2, 0])
    reference = predictions(
        [[2, 0, 0], [0, 2, 0], [0, 0, 2], [0, 2, 0]]
    )  # right, right, right, wrong
    variant = predictions(
        [[2, 0.5, 0], [3, 2, 0], [0, 0, 2], [2.25, 2, 0]]
    )  # row 1 lost, row 3 won
    parity = compare_to_reference(eval_split, "onnx_int8", [variant], [reference], seed=0)
    assert parity.largest_logit_difference == 3
    assert (parity.flips, parity.answers) == (2, 4)
    assert parity.change.value == 0
    assert parity.change.rows == 4
    assert -1 <= parity.change.low < 0 < parity.change.high <= 1


def test_flips_are_counted_over_seeds_and_the_change_is_their_mean():
    eval_split = make_eval_split(GOLD)
    references = [saying(mistaken(GOLD, [seed])) for seed in range(3)]
    variants = [saying(mistaken(GOLD, [seed, 10, 11])) for seed in range(2)] + references[2:]
    parity = compare_to_reference(eval_split, "onnx_int8", variants, references, seed=0)
    assert (parity.flips, parity.answers) == (4, 900)
    assert parity.change.value == pytest.approx(-4 / 900)
    assert parity.change.rows == 300
    assert parity.largest_logit_difference == 3


def test_the_difference_of_logits_is_the_largest_of_any_seed_row_and_class():
    eval_split, one = make_eval_split(GOLD), saying(GOLD)
    for seed, row, class_, by in ((0, 5, 1, 0.25), (1, 299, 2, -0.5)):
        logits = one.logits.copy()
        logits[row, class_] += by
        variants = [one, one]
        variants[seed] = predictions(logits)
        parity = compare_to_reference(eval_split, "onnx", variants, [one, one], seed=0)
        assert parity.largest_logit_difference == abs(by)
        assert parity.flips == 0


@pytest.mark.parametrize("variant", ["onnx", "onnx_int8", "onnx_int8_static"])
def test_equal_answers_are_not_rejected(variant):
    seeds = [saying(mistaken(GOLD, [seed])) for seed in range(2)]
    parity = compare_to_reference(make_eval_split(GOLD), variant, seeds, seeds, seed=0)
    assert (parity.largest_logit_difference, parity.flips) == (0, 0)
    assert (parity.change.low, parity.change.value, parity.change.high) == (0, 0, 0)
    assert parity.why_rejected(0.0) == ""


def test_each_is_read_with_its_own_calibration():
    gold = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]])
    eval_split = make_eval_split(gold, "multi_label", "micro_f1")
    logits = np.where(gold, 1.0, -1.0)
    plain, shifted = predictions(logits), predictions(logits - 2, thresholds=[0.2] * 3)
    careless = predictions(logits - 2)  # the same logits without thresholds that fit
    fitted, unfitted = (
        compare_to_reference(eval_split, "onnx_int8", [ours], [plain], seed=0)
        for ours in (shifted, careless)
    )
    assert (fitted.flips, fitted.change.value) == (0, 0)
    assert (unfitted.flips, unfitted.change.value) == (4, -1)
    assert fitted.largest_logit_difference == unfitted.largest_logit_difference == 2


def test_without_gold_quality_is_agreement_with_the_teacher():
    teacher = saying(GOLD)
    eval_split = make_eval_split(np.full(300, NO_LABEL), teacher=teacher)
    lossy = saying(mistaken(GOLD, np.arange(30)))
    parity = compare_to_reference(eval_split, "onnx_int8", [lossy], [teacher], seed=0)
    assert parity.change.value == pytest.approx(-0.1)
    assert parity.why_rejected(DROP).startswith("rejected: ")


@pytest.mark.parametrize(
    ("gap", "rejected"),
    [(0.0, False), (ROUNDING / 2, False), (2 * ROUNDING, True), (float("nan"), True)],
)
def test_float32_is_rejected_where_its_logits_are_off(gap, rejected):
    one = saying(GOLD)
    logits = one.logits.copy()
    logits[7, 1] += gap
    parity = compare_to_reference(
        make_eval_split(GOLD), "onnx", [predictions(logits)], [one], seed=0
    )
    why = parity.why_rejected(1.0)
    assert bool(why) == rejected
    if rejected:
        assert why.startswith("rejected: its logits differ from torch's by up to ")
        assert why.endswith("more than 0.001")


@pytest.mark.parametrize("seed", [0, 1])
def test_float32_is_rejected_for_one_broken_number_in_any_seed(seed):
    one = saying(GOLD)
    logits = one.logits.copy()
    logits[7, 1] = np.nan
    variants = [one, one]
    variants[seed] = predictions(logits)
    parity = compare_to_reference(make_eval_split(GOLD), "onnx", variants, [one, one], seed=0)
    assert parity.why_rejected(1.0).startswith("rejected: ")


def test_float32_is_not_judged_by_its_quality_and_int8_not_by_its_logits():
    lossy = (-0.5, -0.6, -0.4)
    assert make_parity("onnx", 0.0, lossy).why_rejected(DROP) == ""
    assert make_parity("onnx_int8", 5.0).why_rejected(DROP) == ""


@pytest.mark.parametrize("variant", ["onnx_int8", "onnx_int8_static"])
@pytest.mark.parametrize(
    ("change", "rejected"),
    [
        ((-0.05, -0.08, -0.02), True),  # surely loses more
        ((-0.05, -0.08, -0.0101), True),
        ((-0.05, -0.08, -0.01), False),  # may lose no more than is allowed
        ((-0.05, -0.15, 0.05), False),  # uncertain
        ((-0.005, -0.008, -0.002), False),  # surely loses, but little
        ((0.02, 0.01, 0.03), False),
    ],
)
def test_int8_is_rejected_only_where_its_whole_interval_loses_too_much(variant, change, rejected):
    assert bool(make_parity(variant, 0.3, change).why_rejected(DROP)) == rejected


def test_int8_that_clearly_loses_is_rejected_with_the_points_and_the_interval():
    eval_split, good = make_eval_split(GOLD), saying(GOLD)
    lossy = saying(mistaken(GOLD, np.arange(30)))
    parity = compare_to_reference(eval_split, "onnx_int8", [lossy], [good], seed=0)
    assert parity.change.value == pytest.approx(-0.1)
    why = parity.why_rejected(DROP)
    assert why == (
        f"rejected: loses more than the 1 points allowed, {parity.change.points} against torch"
    )
    assert why.startswith("rejected: loses more than the 1 points allowed, -10.00 points [-1")
    assert parity.why_rejected(0.2) == ""


def test_int8_that_loses_two_of_many_rows_is_uncertain_and_stays():
    eval_split, good = make_eval_split(GOLD), saying(GOLD)
    lossy = saying(mistaken(GOLD, [3, 4, 5, 6]))
    parity = compare_to_reference(eval_split, "onnx_int8", [lossy], [good], seed=0)
    assert parity.change.low < -DROP < parity.change.high < 0
    assert parity.why_rejected(DROP) == ""
    assert parity.why_rejected(0.0).startswith("rejected: loses more than the 0 points allowed")


def test_parity_says_what_was_found():
    parity = Parity("onnx_int8", 0.034, 12, 6400, Figure(-0.0012, -0.003, 0.0005, 3200))
    assert str(parity) == (
        "-0.12 points [-0.30, +0.05] against torch, 12 of 6,400 answers differ, "
        "logits by at most 0.034"
    )


def macro_f1(gold, said):
    """F1 of each class, then their mean."""
    scores = []
    for class_ in range(3):
        both = ((gold == class_) & (said == class_)).sum()
        scores.append(2 * both / max(1, (gold == class_).sum() + (said == class_).sum()))
    return np.mean(scores)


def accuracy(gold, said):
    return (gold == said).mean()


@pytest.mark.parametrize(("metric", "score"), [("accuracy", accuracy), ("macro_f1", macro_f1)])
def test_the_interval_is_that_of_resampling_the_rows_directly(metric, score):
    generator = np.random.default_rng(3)
    seeds, rows = 2, 300
    wrong = [generator.choice(rows, 60, replace=False) for _ in range(seeds)]
    ours = [mistaken(GOLD, rows_wrong) for rows_wrong in wrong]
    theirs = [mistaken(GOLD, rows_wrong[:30]) for rows_wrong in wrong]
    parity = compare_to_reference(
        make_eval_split(GOLD, metric=metric),
        "onnx_int8",
        [saying(said) for said in ours],
        [saying(said) for said in theirs],
        seed=1,
    )

    def change(drawn):
        pairs = zip(ours, theirs, strict=True)
        return np.mean(
            [score(GOLD[drawn], a[drawn]) - score(GOLD[drawn], b[drawn]) for a, b in pairs]
        )

    draws = [change(generator.integers(rows, size=rows)) for _ in range(2000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert parity.change.value == pytest.approx(change(np.arange(rows)), abs=1e-6)
    width = high - low
    assert parity.change.low == pytest.approx(low, abs=0.12 * width)
    assert parity.change.high == pytest.approx(high, abs=0.12 * width)
