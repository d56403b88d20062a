from dataclasses import replace

import numpy as np
import pytest
from builders import open_run
from samples import write_words
from scipy.special import log_softmax, softmax

from distill_tasks.config import parse_config
from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Trial
from distill_tasks.results.run import make_training_set, take
from distill_tasks.results.trained import train_one
from distill_tasks.stages.tune import draw_learning_curve, tune_objective
from distill_tasks.students import BagOfWordsStudent
from distill_tasks.training.loss_settings import LossConfig
from distill_tasks.training.objective import Objective

OBJECTIVE = Objective(2.0, 0.9)


class Still:
    """What both stages need, made once."""

    def __init__(self, written):
        self.plain = open_run(parse_config(written, "test"))
        self.config, self.corpus, self.labels = (
            getattr(self.plain, name) for name in ("config", "corpus", "labels")
        )

    def objective(self, corpus=None, students=None, **loss):
        update = {"loss": LossConfig(**loss)} | ({"students": students} if students else {})
        config = self.config.model_copy(update=update)
        run = replace(self.run(OBJECTIVE), config=config, corpus=corpus or self.corpus)
        return tune_objective(run)

    def curve(self, corpus=None, objective=OBJECTIVE):
        run = replace(self.run(objective), corpus=corpus or self.corpus)
        return draw_learning_curve(run)

    def run(self, objective):
        return replace(self.plain, objective=objective)

    def resplit(self, **splits):
        return replace(self.corpus, splits=self.corpus.splits | splits)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    return Still(write_words(tmp_path_factory.mktemp("vary")))


@pytest.fixture(scope="module")
def both(still):
    """Temperature and α both left to the run."""
    return still.objective(temperature="auto", alpha="auto")


def pairs(chosen):
    return [(one.temperature, one.alpha) for one in chosen.compared]


def test_a_blend_that_is_configured_is_taken_as_it_is_and_nothing_is_compared(still):
    chosen = still.objective(temperature=3.0, alpha=0.25)
    assert chosen.objective == Objective(3.0, 0.25)
    assert (chosen.reason, chosen.compared, chosen.reused) == ("as configured", [], False)


def test_temperatures_are_compared_first_then_alphas_at_the_best_of_them(still, both):
    eval_split = Evaluator(still.run(OBJECTIVE), "validation").eval_split
    fitted = round(eval_split.teacher.calibration.temperature, 2)
    first = sorted({1.0, 2.0, 4.0, fitted})
    best = min(both.compared[: len(first)], key=lambda one: one.loss).temperature
    assert pairs(both) == [*((each, 0.9) for each in first), (best, 0.5), (best, 1.0)]


def test_the_least_loss_is_taken_and_the_reason_names_it(both):
    best = min(both.compared, key=lambda one: one.loss)
    assert both.objective == Objective(best.temperature, best.alpha)
    assert f"least validation NLL, {best.loss:.4f}, of {len(both.compared)} compared" in both.reason
    assert "bag-of-words-3000" in both.reason


def test_only_what_is_left_to_the_run_is_varied(still):
    assert {pair[1] for pair in pairs(still.objective(temperature="auto", alpha=0.3))} == {0.3}
    alphas = still.objective(temperature=5.0, alpha="auto")
    assert pairs(alphas) == [(5.0, 0.9), (5.0, 0.5), (5.0, 1.0)]


def test_loss_and_quality_are_those_of_the_student_trained_with_that_blend(still):
    one = still.objective(temperature=5.0, alpha="auto").compared[1]
    config, objective = still.config, Objective(one.temperature, one.alpha)
    student = train_one(still.run(objective), Trial(config.students[0], config.seed))
    evaluator = Evaluator(still.run(objective), "validation")
    asked, gold = evaluator.ask(student), still.corpus.splits["validation"].gold
    scaled = asked.logits.astype(np.float64) / student.calibration.temperature
    likelihood = log_softmax(scaled, axis=1)[np.arange(len(gold)), gold]
    assert one.loss == pytest.approx(-likelihood.mean(), rel=1e-4)
    assert one.quality == pytest.approx((asked.logits.argmax(axis=1) == gold).mean())


def test_without_gold_the_divergence_from_the_teacher_decides(still):
    bare = {
        name: Split(split.texts, np.full(len(split), NO_LABEL))
        for name, split in still.corpus.splits.items()
    }
    chosen = still.objective(replace(still.corpus, splits=bare), temperature=2.0, alpha="auto")
    assert chosen.reason.startswith("least validation divergence from the teacher")
    losses = [one.loss for one in chosen.compared]
    assert len(set(losses)) == 1  # α weighs nothing where no row has gold
    texts = still.corpus.splits["validation"].texts
    teacher = softmax(still.labels.read(texts).logits.astype(np.float64), axis=1)
    from_uniform = (teacher * np.log(teacher * teacher.shape[1])).sum(axis=1).mean()
    assert 0 < losses[0] < from_uniform


def test_what_was_compared_is_read_again_for_the_same_rows_and_settings_alone(still, both):
    again = still.objective(temperature="auto", alpha="auto")
    assert again == replace(both, reused=True)
    fewer = still.corpus.splits["transfer"].take(np.arange(100))
    assert not still.objective(
        still.resplit(transfer=fewer), temperature="auto", alpha="auto"
    ).reused


def test_another_cheapest_student_is_compared_afresh(still):
    still.objective(temperature=7.0, alpha="auto")
    other = (BagOfWordsStudent(max_features=40),)
    chosen = still.objective(students=other, temperature=7.0, alpha="auto")
    assert not chosen.reused
    assert "bag-of-words-40" in chosen.reason


@pytest.fixture(scope="module")
def curve(still):
    return still.curve()


def test_each_point_doubles_the_transfer_rows_of_the_one_before(curve):
    assert curve.student == "bag-of-words-3000"
    assert [point.transfer_rows for point in curve.points] == [30, 60, 120, 240]
    assert {point.quality.rows for point in curve.points} == {200}
    assert not curve.reused


def test_text_with_words_that_gold_lacks_is_worth_something_and_the_sentence_says_so(curve):
    values = [point.quality.value for point in curve.points]
    assert values[0] + 0.1 < values[-1]
    assert curve.last_gain.value == pytest.approx(values[-1] - values[-2])
    assert curve.last_gain.low > 0
    assert "Going from 120 to 240 transfer rows bought bag-of-words-3000 +" in curve.meaning
    assert curve.meaning.endswith("twice as much text would buy up to about as much again.")


def test_the_last_point_is_the_student_that_has_all_rows(still, curve):
    config = still.config
    student = train_one(still.run(OBJECTIVE), Trial(config.students[0], config.seed))
    asked = Evaluator(still.run(OBJECTIVE), "held_out").ask(student)
    right = asked.logits.argmax(axis=1) == still.corpus.splits["held_out"].gold
    assert curve.points[-1].quality.value == pytest.approx(right.mean())


def test_a_curve_is_read_again_for_the_same_rows_and_blend_alone(still, curve):
    assert still.curve() == replace(curve, reused=True)
    assert not still.curve(objective=Objective(4.0, 0.9)).reused


def test_too_little_transfer_or_none_draws_no_curve(still):
    transfer = still.corpus.splits["transfer"]
    few = still.resplit(transfer=transfer.take(np.arange(79)))
    none = replace(still.corpus, splits={n: s for n, s in few.splits.items() if n != "transfer"})
    for corpus in (few, none):
        drawn = still.curve(corpus)
        assert (drawn.points, drawn.last_gain) == ([], None)
        assert not still.curve(corpus).reused  # nothing was made that could be kept
        assert "too few transfer rows" in drawn.meaning
    enough = still.resplit(transfer=transfer.take(np.arange(80)))
    assert [point.transfer_rows for point in still.curve(enough).points] == [10, 20, 40, 80]


def test_a_part_of_a_lesson_keeps_rows_gold_and_answers_together(still):
    training_set = make_training_set(still.run(OBJECTIVE), 0)
    rows = np.array([0, 3, 75, 200])
    part = take(training_set, rows)
    assert part.rows.texts == tuple(training_set.rows.texts[row] for row in rows)
    assert part.rows.gold.tolist() == training_set.rows.gold[rows].tolist()
    assert part.rows.gold.tolist()[2:] == [NO_LABEL, NO_LABEL]
    np.testing.assert_array_equal(
        part.soft_labels.logits, still.labels.read(part.rows.texts).logits
    )
