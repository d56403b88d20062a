from dataclasses import replace

import pytest
from builders import open_run
from samples import GOOD, POOR, write_words

from distill_tasks.config import BudgetConfig, parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.results.estimates import Planned
from distill_tasks.results.outcomes import Halving
from distill_tasks.stages import plan
from distill_tasks.stages.plan import fit, fit_budget, plan_run, sum_up
from distill_tasks.stages.prepare import check_config, keep_corpus
from distill_tasks.stages.search import find_trials


@pytest.fixture
def grid(written):
    """A grid of a bag of words and two transformers, which take 1, 2 and 4 minutes once."""

    def make(evaluate, label="label", **changes):
        students = [{"family": "bag_of_words"}, {"family": "layers", "layers": [1, 2]}]
        data = written["data"] | {"label_column": label}
        further = {"students": students, "evaluate": evaluate, "data": data} | changes
        config = parse_config(written | further, "test")
        planned = [
            Planned(student.name, 1, False, 1, float(each))
            for student, each in zip(config.students, (1, 2, 4), strict=True)
        ]
        return config, planned

    return make


@pytest.mark.parametrize(
    ("evaluate", "label", "minutes"),
    [
        # Once 1 + 2 + 4; then of the two longest that are finalists, two more seeds each.
        ({"finalists": 2, "seeds": 3, "controls": False}, "label", 7 + 2 * (4 + 2)),
        # And three controls each.
        ({"finalists": 2, "seeds": 3}, "label", 7 + 5 * (4 + 2)),
        ({"finalists": 2, "seeds": 3}, None, 7 + 2 * (4 + 2)),
        # A bag of words always sees all rows: no other seed, and one control.
        ({"finalists": 3, "seeds": 3}, "label", 7 + 5 * (4 + 2) + 1),
        ({"finalists": 1, "seeds": 1, "controls": False}, "label", 7),
    ],
)
def test_all_trainings_take_at_most(grid, evaluate, label, minutes):
    config, planned = grid(evaluate, label)
    summed = sum_up(config, planned, (0.0, 0.0))
    assert sum(one.minutes for one in planned) + summed.bound_further() == minutes


def test_a_run_is_all_that_it_does(grid, monkeypatch):
    monkeypatch.setattr(plan, "AROUND_MINUTES", 0.0)
    monkeypatch.setattr(plan, "MEASURE_S", 60.0)
    one, taught = {"finalists": 1, "seeds": 1, "controls": False}, (3.0, 5.0)
    config, planned = grid(one, export={"variants": []})
    # Teacher and answers, the grid, three models measured, two trainings of the learning curve.
    assert sum_up(config, planned, taught).sum_minutes() == 8 + 7 + 3 + 2
    assert sum_up(config, planned, taught).sum_minutes(["layers-1"]) == 8 + 2 + 1 + 2
    auto, planned = grid(one, export={"variants": []}, loss={"temperature": "auto"})
    assert sum_up(auto, planned, taught).sum_minutes() == 20 + 4
    folds, planned = grid(one | {"validation_folds": 4}, export={"variants": []})
    assert sum_up(folds, planned, taught).sum_minutes() == 20 + 3 * 1


def test_a_budget_keeps_one_of_each_family_before_the_dearer_ones(grid, monkeypatch):
    monkeypatch.setattr(plan, "AROUND_MINUTES", 0.0)
    monkeypatch.setattr(plan, "MEASURE_S", 0.0)
    config, planned = grid({"finalists": 1, "seeds": 1, "controls": False}, export={"variants": []})
    summed = sum_up(config, planned, (1.0, 0.0))

    def left_out(minutes):
        return [*fit_budget(config, summed, BudgetConfig(minutes=minutes)).left_out]

    assert left_out(10) == []
    assert left_out(9.9) == ["layers-2"]
    assert left_out(5.9) == ["layers-1", "layers-2"]
    with pytest.raises(InputError, match=r"budget.minutes is 3.9, but .* alone take about 4.0"):
        left_out(3.9)


def test_the_fit_of_a_run_is_kept(tmp_path):
    config = parse_config(write_words(tmp_path) | {"budget": {"minutes": 600}}, "test")
    corpus = keep_corpus(config, check_config(config))
    whole = fit.fn(config, corpus)
    assert (whole.left_out, whole.reused) == ({}, False)
    assert fit.fn(config, corpus).reused


def test_a_plan_counts_the_rows_of_a_sample_alone(written):
    written["students"] = [{"family": "static", "dimensions": 8, "epochs": 3}]
    whole = parse_config(written, "test")
    written["data"]["sample"] = {"rows": 80}
    part = parse_config(written, "test")
    steps = [plan_run(one, check_config(one)).students[0].steps for one in (whole, part)]
    assert steps[1] < steps[0]


def test_a_student_that_is_left_out_is_not_tried(tmp_path):
    run = open_run(parse_config(write_words(tmp_path), "test"))
    small = replace(run, left_out=(POOR,))
    nobody = Halving(0, [], 0.0, reused=True)
    assert [trial.student.name for trial in find_trials(run, nobody).trials] == [GOOD, POOR]
    assert [trial.student.name for trial in find_trials(small, nobody).trials] == [GOOD]


def test_without_a_budget_nothing_is_tried(tmp_path):
    config = parse_config(write_words(tmp_path), "test")
    assert fit.fn(config, keep_corpus(config, check_config(config))).reused


def test_a_teacher_counts_until_the_store_holds_it_and_its_answers(written):
    config = parse_config(written, "test")
    corpus = check_config(config)
    fresh = plan_run(config, corpus)
    assert min(fresh.teacher, fresh.labelling) > 0
    open_run(config, corpus)
    kept = plan_run(config, corpus)
    assert (kept.teacher, kept.labelling) == (0, 0)
