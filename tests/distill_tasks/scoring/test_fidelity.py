from dataclasses import replace

import numpy as np
import pytest
from builders import make_eval_split, predict_surely
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

from distill_tasks.data.corpus import NO_LABEL
from distill_tasks.problems.classification import to_decisions
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.fidelity import (
    CONFUSIONS,
    EXAMPLES,
    SMALLEST_SLICE_ROWS,
    Slice,
    draw_panel,
)
from distill_tasks.scoring.scorecard import Predictions

CLASSES = ("cats", "dogs", "fish")
ROWS = 240


def make_both(gold, by_teacher, predicted, problem="single_label", texts=None, slices=None):
    """Return an evaluation split and a student's predictions, from class numbers or 0/1 rows."""
    teacher, student = (
        predict_surely(to_decisions(np.array(x), 3)) for x in (by_teacher, predicted)
    )
    split = make_eval_split(gold, teacher, CLASSES, problem, texts=texts, slices=slices)
    return split, student


def make_noisy(problem, seed=0):
    """Return an evaluation split of many rows, on which teacher and student err at random."""
    generator = np.random.default_rng(seed)
    shape, values = (ROWS, 3) if problem == "single_label" else ((ROWS, 3), 2)
    gold = generator.integers(values, size=shape)
    by_teacher, predicted = (
        np.where(generator.random(shape) < share, gold, generator.integers(values, size=shape))
        for share in (0.8, 0.6)
    )
    texts = tuple(" ".join(["word"] * count) for count in generator.integers(1, 30, size=ROWS))
    slices = tuple(generator.choice(["mail", "phone", "web"], size=ROWS).tolist())
    return make_both(gold, by_teacher, predicted, problem, texts, slices)


@pytest.fixture(scope="module", params=["single_label", "multi_label"])
def eval_split(request):
    return make_noisy(request.param)


@pytest.fixture(scope="module")
def panel(eval_split):
    return draw_panel(*eval_split)


def hits(eval_split):
    rows, student = eval_split
    return (
        (rows.decide(student) == rows.gold).all(axis=1),
        (rows.decide(rows.teacher) == rows.gold).all(axis=1),
    )


def test_the_confusion_is_that_of_scikit_learn_with_the_teacher_as_truth(eval_split, panel):
    rows, student = eval_split
    by_teacher, predicted = rows.decide(rows.teacher), rows.decide(student)
    if rows.problem == "single_label":
        expected = confusion_matrix(by_teacher.argmax(axis=1), predicted.argmax(axis=1))
    else:
        cells = multilabel_confusion_matrix(
            by_teacher, predicted
        )  # [[neither, student], [teacher, both]]
        expected = cells[:, [1, 1, 0, 0], [1, 0, 1, 0]]
    assert panel.confusion == expected.tolist()


def test_slices_say_how_many_student_and_teacher_got_right(eval_split, panel):
    rows, _ = eval_split
    right, teacher_right = hits(eval_split)
    chosen = {("class", name): rows.gold[:, number] for number, name in enumerate(CLASSES)} | {
        ("slice", name): np.array(rows.split.slices) == name for name in ("mail", "phone", "web")
    }
    found = {(one.kind, one.name): one for one in panel.slices if one.kind != "length"}
    assert list(found) == list(chosen)
    for key, members in chosen.items():
        one = found[key]
        assert one.rows == members.sum()
        assert one.student == pytest.approx(right[members].mean())
        assert one.teacher == pytest.approx(teacher_right[members].mean())
        assert one.difference == pytest.approx(one.student - one.teacher)


def test_every_row_has_one_length_and_lengths_are_about_as_common(eval_split, panel):
    rows, _ = eval_split
    lengths = [one for one in panel.slices if one.kind == "length"]
    assert len(lengths) == 4
    assert sum(one.rows for one in lengths) == ROWS
    assert min(one.rows for one in lengths) > ROWS / 8
    words = np.array([len(text.split()) for text in rows.split.texts])
    for one in lengths:
        low, high = (int(word) for word in one.name.split() if word.isdigit())
        assert one.rows == ((words >= low) & (words <= high)).sum()


def test_texts_of_one_length_are_not_sliced_by_it():
    panel = draw_panel(*make_both([0, 1], [0, 1], [0, 2]))
    assert {one.kind for one in panel.slices} == {"class"}


def test_the_worst_slice_is_the_one_with_the_largest_loss_and_has_an_interval(panel):
    assert panel.worst == min(panel.slices, key=lambda one: one.difference)
    figure = panel.worst_difference
    assert figure.value == pytest.approx(panel.worst.difference, abs=1e-6)
    assert figure.low < figure.value < figure.high
    assert figure.rows == panel.worst.rows


def test_a_slice_of_few_rows_is_never_the_worst():
    few = SMALLEST_SLICE_ROWS - 1
    gold = [0] * few + [1] * 40
    predicted = [2] * few + [1] * 39 + [0]
    panel = draw_panel(*make_both(gold, gold, predicted, slices=("web",) * len(gold)))
    assert panel.worst == Slice("slice", "web", len(gold), pytest.approx(39 / (40 + few)), 1.0)
    gold, predicted = [0, *gold], [0, *predicted]  # one row more and it counts
    panel = draw_panel(*make_both(gold, gold, predicted))
    assert (panel.worst.kind, panel.worst.name, panel.worst.rows) == ("class", "cats", few + 1)


def test_without_a_large_slice_there_is_no_worst_one():
    panel = draw_panel(*make_both([0, 1, 2], [0, 1, 2], [0, 1, 1]))
    assert panel.worst is None
    assert panel.worst_difference is None
    assert len(panel.slices) == 3


def test_errors_are_inherited_new_or_fixed(eval_split, panel):
    right, teacher_right = hits(eval_split)
    members = {
        "inherited": ~right & ~teacher_right,
        "new": ~right & teacher_right,
        "fixed": right & ~teacher_right,
    }
    assert set(panel.errors) == set(members)
    for kind, group in panel.errors.items():
        assert group.rows == members[kind].sum() > EXAMPLES
        assert len(group.examples) == EXAMPLES
        assert all(members[kind][example.row] for example in group.examples)


def test_confusions_name_what_the_one_who_is_wrong_took_for_what():
    gold, by_teacher, predicted = [0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 0, 2], [1, 1, 1, 2, 2, 2]
    errors = draw_panel(*make_both(gold, by_teacher, predicted)).errors
    found = {
        kind: [(one.right, one.said, one.rows) for one in group.confusions]
        for kind, group in errors.items()
    }
    assert found == {
        "new": [("cats", "dogs", 2), ("dogs", "fish", 1)],
        "inherited": [("cats", "dogs", 1)],
        "fixed": [("fish", "cats", 1)],  # the teacher's error
    }


def test_only_the_most_frequent_confusions_are_listed(panel):
    for group in panel.errors.values():
        counts = [one.rows for one in group.confusions]
        assert len(counts) <= CONFUSIONS
        assert counts == sorted(counts, reverse=True)
        assert sum(counts) <= group.rows


def test_several_labels_are_confused_as_a_whole():
    gold, by_teacher, predicted = [[1, 1, 0]] * 2, [[1, 1, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0]]
    panel = draw_panel(*make_both(gold, by_teacher, predicted, "multi_label"))
    (new,), (inherited,) = (panel.errors[kind].confusions for kind in ("new", "inherited"))
    assert (new.right, new.said) == ("cats|dogs", "cats")
    assert (inherited.right, inherited.said) == ("cats|dogs", "")
    # Rows of each label that both, the teacher alone, the student alone and neither gave it to.
    assert panel.confusion == [[1, 0, 0, 1], [0, 2, 0, 0], [0, 0, 0, 2]]


def test_examples_are_the_errors_that_the_student_was_surest_of():
    eval_split, student = make_both([0] * 30, [0] * 30, [1] * 30)
    order = np.random.default_rng(0).permutation(30)
    surer = Predictions(
        student.logits * (1 + order[:, None] / 30).astype(np.float32), Calibration()
    )
    examples = draw_panel(eval_split, surer).errors["new"].examples
    assert [example.row for example in examples] == np.argsort(-order)[:EXAMPLES].tolist()
    first = examples[0]
    assert (first.gold, first.teacher, first.student) == ("cats", "cats", "dogs")
    assert first.text == f"row {first.row}"
    assert first.confidence == pytest.approx(
        surer.calibration.confidence(surer.logits, "single_label").max()
    )


def test_examples_are_one_line_and_not_endless():
    texts = ("two\n lines", "long " * 200)
    examples = draw_panel(*make_both([0, 0], [0, 0], [1, 1], texts=texts)).errors["new"].examples
    assert examples[0].text == "two lines"
    assert len(examples[1].text) == 300
    assert examples[1].text.endswith("…")


def test_a_student_equal_to_its_teacher_has_no_errors_of_its_own(eval_split):
    rows, _ = eval_split
    panel = draw_panel(rows, rows.teacher)
    assert panel.errors["new"].rows == panel.errors["fixed"].rows == 0
    assert panel.errors["new"].examples == panel.errors["new"].confusions == []
    assert panel.errors["inherited"].rows > 0
    assert {one.difference for one in panel.slices} == {0}


def test_reliability_bins_hold_every_row_and_the_shares_that_are_right(eval_split, panel):
    for bins, right in zip(
        (panel.reliability["student"], panel.reliability["teacher"]), hits(eval_split), strict=True
    ):
        assert sum(one.rows for one in bins) == ROWS
        total = sum(one.right * one.rows for one in bins)
        assert total == pytest.approx(right.sum())
        confidences = [one.confidence for one in bins]
        assert confidences == sorted(confidences)


def test_fewer_rows_than_bins_leave_no_empty_bin():
    panel = draw_panel(*make_both([0, 1], [0, 1], [0, 2]))
    assert [one.rows for one in panel.reliability["student"]] == [1, 1]


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_without_gold_the_teacher_is_the_truth(problem):
    eval_split, student = make_noisy(problem)
    bare = replace(
        eval_split,
        split=replace(eval_split.split, gold=np.full_like(eval_split.split.gold, NO_LABEL)),
    )
    panel = draw_panel(bare, student)
    assert not panel.has_gold
    disagreed = (eval_split.decide(student) != eval_split.decide(eval_split.teacher)).any(axis=1)
    assert set(panel.errors) == {"disagreements"}
    group = panel.errors["disagreements"]
    assert group.rows == disagreed.sum()
    assert {example.gold for example in group.examples} == {None}
    assert all(example.teacher != example.student for example in group.examples)
    assert {one.teacher for one in panel.slices} == {1}
    assert panel.reliability == {}
    assert panel.confusion == draw_panel(eval_split, student).confusion
    assert sum(one.rows for one in panel.slices if one.kind == "slice") == ROWS
