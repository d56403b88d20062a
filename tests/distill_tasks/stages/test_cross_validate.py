from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import make_footprint, make_latencies, open_run, train_students
from samples import GOOD, POOR, write_words

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.results.cross_validation import CrossValidation, open_folds, pool_gold
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import first_trials
from distill_tasks.scoring.intervals import plain_value
from distill_tasks.scoring.scorecard import quality_statistic
from distill_tasks.stages.cross_validate import train_folds
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.select import make_field


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a configuration whose validation is carved from 150 rows with gold."""
    folder = tmp_path_factory.mktemp("folds")
    written = write_words(folder)
    train = pd.concat([pd.read_parquet(written["data"][n]) for n in ("train", "validation")])
    train.to_parquet(folder / "train.parquet", index=False)
    del written["data"]["validation"]
    return written


@pytest.fixture(scope="module")
def run(written):
    evaluate = {"seeds": 1, "validation_folds": 4}
    return open_run(parse_config(written | {"evaluate": evaluate}, "test"))


@pytest.fixture(scope="module")
def trained(run):
    return train_students(run), train_folds(run, first_trials(run.config))


def test_every_student_is_trained_again_on_each_further_carving_and_kept(run, trained):
    _, cross = trained
    for number, fold in enumerate(cross.folds, start=2):
        assert [s.name for s in fold] == [f"{n}-carving-{number}" for n in (GOOD, POOR)]
    assert len({student.digest for fold in cross.folds for student in fold}) == 6
    assert train_folds(run, first_trials(run.config)).reused


def test_quality_is_the_mean_over_carvings_and_surer_than_on_one(run, trained):
    students, cross = trained
    scores, times = score_all(run, students, "validation"), make_latencies({GOOD: 0.4, POOR: 0.2})
    alone = make_field(run, students, scores, times)
    field = make_field(run, students, scores, times, cross=cross)
    folds = [Evaluator(fold, "validation") for fold, _ in open_folds(run)]
    for number, (student, candidate) in enumerate(zip(students, field.candidates, strict=True)):
        values = [scores.candidates[student.name].quality.value]
        for evaluator, fold in zip(folds, cross.folds, strict=True):
            statistic = quality_statistic(evaluator.eval_split, [evaluator.ask(fold[number])])
            values.append(plain_value(statistic, len(evaluator.eval_split.split)))
        assert candidate.quality.value == pytest.approx(np.mean(values))
        assert candidate.quality.rows > alone.candidates[number].quality.rows
    poor, before = field.candidates[1].quality, alone.candidates[1].quality
    assert poor.high - poor.low < before.high - before.low
    assert field.gaps[0, 1] > alone.gaps[0, 1]


def test_a_promise_follows_the_quality_over_all_carvings(run, trained):
    students, cross = trained
    select = run.config.select.model_copy(update={"min_accuracy": 0.5})
    ours = replace(run, config=run.config.model_copy(update={"select": select}))
    scores, times = score_all(ours, students, "validation"), make_latencies({GOOD: 0.4, POOR: 0.2})
    field = make_field(ours, students, scores, times, cross=cross)
    for candidate in field.candidates:
        (test,) = candidate.promises
        assert test.value == pytest.approx(candidate.quality.value)
    middle = field.redraws.margins.mean(axis=0)
    assert middle == pytest.approx([c.margin for c in field.candidates], abs=0.03)


def test_beside_students_of_one_carving_the_others_keep_their_common_level(run, trained):
    students, cross = trained
    first = Evaluator(run, "validation")
    dear = replace(students[0], name="dear", student="dear", candidate="dear")
    both = pool_gold(first, students, cross)
    mixed = pool_gold(first, [*students, dear], cross)
    gains, apart = (
        [plain_value(pool.gains[name], pool.rows) for name in (GOOD, POOR)]
        for pool in (both, mixed)
    )
    assert apart[0] - apart[1] == pytest.approx(gains[0] - gains[1])
    assert sum(apart) == pytest.approx(0)
    assert "dear" not in mixed.gains
    times = make_latencies({GOOD: 0.4, POOR: 0.2, "dear": 0.9})
    times = replace(times, footprints={**times.footprints, "dear": make_footprint(9)})
    scores = score_all(run, [*students, dear], "validation")
    field = make_field(run, [*students, dear], scores, times, cross=cross)
    assert field.candidates[2].quality.value == scores.candidates["dear"].quality.value
    assert field.candidates[2].quality.rows == len(first.eval_split.split)


def test_a_student_that_failed_on_one_carving_is_compared_on_the_first_alone(run, trained):
    students, cross = trained
    first = Evaluator(run, "validation")
    torn = CrossValidation([fold[:1] if n else fold for n, fold in enumerate(cross.folds)])
    assert [*pool_gold(first, students, torn).gains] == [GOOD]
    none = CrossValidation([[], [], []])
    assert pool_gold(first, students, none) == pool_gold(first, students, CrossValidation())


def test_by_default_nothing_is_trained_again(written):
    run = open_run(parse_config(written, "test"))
    assert train_folds(run, first_trials(run.config)) == CrossValidation()


@pytest.mark.parametrize(
    ("data", "problem"),
    [({"validation": "rows.csv"}, "data.validation is given"), ({"label_column": None}, "gold")],
)
def test_folds_without_gold_to_carve_are_refused(written, data, problem):
    wanted = written | {"evaluate": {"validation_folds": 2}, "data": written["data"] | data}
    with pytest.raises(InputError, match=problem):
        parse_config(wanted, "test")
