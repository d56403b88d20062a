import re
import shutil

import numpy as np
import optuna
import pytest
from builders import open_run
from samples import make_rows, write_words

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Trial
from distill_tasks.results.outcomes import Halving, Stop
from distill_tasks.results.run import Run
from distill_tasks.results.trained import train_one
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.prepare import check_config
from distill_tasks.stages.search import (
    Point,
    Search,
    find_trials,
    search_students,
    start_study,
    tell,
)
from distill_tasks.students import BagOfWordsStudent, LayersStudent, search_space
from distill_tasks.students.search_settings import OptunaConfig
from distill_tasks.training.objective import Objective

OBJECTIVE = Objective(2.0, 0.9)
GRID = ("bag-of-words-3000", "bag-of-words-15")
WORDS = {"family": "bag_of_words", "max_features": {"low": 20, "high": 200, "log": True}}


@pytest.fixture(scope="module")
def rows(empty_mlflow, tmp_path_factory):
    """A configuration whose grid is two bags of words, and the folder of its rows."""
    folder = tmp_path_factory.mktemp("rows")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    return write_words(folder)


@pytest.fixture
def search(rows, tmp_path, caplog):
    """Search in spaces, and return what was found, and the names that were drawn in order."""

    def run(trials, *spaces, **changes):
        caplog.clear()
        wanted = {"optuna": {"trials": trials, "spaces": list(spaces)}}
        written = rows | {"work_dir": str(tmp_path / "work"), "search": wanted} | changes
        config = parse_config(written, "test")
        with caplog.at_level("INFO", "potstill"):
            found = search_students(open_all(config), config.search.optuna)
        return found, re.findall(r"search (\S+): trial", caplog.text)

    return run


def open_all(config):
    return open_run(config, check_config(config))


def trained(caplog):
    return re.findall(r"train (\S+): learning", caplog.text)


def test_without_spaces_what_was_not_stopped_of_the_grid_is_trained(rows, tmp_path):
    config = parse_config(rows | {"work_dir": str(tmp_path)}, "test")
    halving = Halving(2, [Stop(GRID[0], 1 / 4, GRID[1], 3.0, 30.0)], 160.0, reused=False)
    found = find_trials(Run(config, None, None, None, None), halving)
    assert ([trial.name for trial in found.trials], found.reused) == ([GRID[1]], True)


def test_what_is_found_lies_in_its_space_and_is_trained_once(search, caplog):
    found, drawn = search(2, WORDS | {"ngrams": [1, 2]})
    assert [student.name for student in found.further] == list(dict.fromkeys(drawn))
    assert trained(caplog) == list(dict.fromkeys(drawn))
    assert all(20 <= student.max_features <= 200 for student in found.further)
    assert all(student.ngrams in (1, 2) for student in found.further)
    assert not found.reused


def test_a_search_that_was_cut_short_goes_on_without_training_again(search, caplog):
    _, drawn = search(2, WORDS)
    longer, again = search(3, WORDS)
    assert again[:2] == drawn
    assert trained(caplog) == again[2:]
    assert not longer.reused
    same, replayed = search(3, WORDS)
    assert (replayed, same.further, same.reused) == (again, longer.further, True)
    assert not trained(caplog)


def test_what_is_drawn_after_the_first_ten_rests_on_results_and_is_the_same_again(search, caplog):
    space = {"family": "bag_of_words", "max_features": [1, 400], "ngrams": [1, 4]}
    first, drawn = search(16, space)
    assert len(trained(caplog)) == len(first.further) == len(set(drawn)) <= 4
    second, again = search(16, space)
    assert (again, second.further) == (drawn, first.further)
    _, otherwise = search(16, space, seed=8)
    assert otherwise != drawn


def test_students_of_the_grid_are_no_proposals_and_are_trained_once(search, caplog):
    found, drawn = search(5, {"family": "bag_of_words", "max_features": [3000, 15]})
    assert found.further == []
    assert set(drawn) == set(trained(caplog)) == set(GRID)
    assert len(trained(caplog)) == 2


def test_spaces_are_drawn_from_side_by_side(search):
    spaces = [{"family": "bag_of_words", "max_features": size} for size in (30, 40)]
    found, _ = search(6, *spaces)
    assert {student.max_features for student in found.further} == {30, 40}


@pytest.fixture
def with_weights(tiny_base, tmp_path):
    """The changes that give students a teacher with weights, which was never distilled."""
    counts = {"train": 150, "validation": 60, "held_out": 60}
    data = {name: str(tmp_path / f"{name}.parquet") for name in counts}
    for seed, (name, count) in enumerate(counts.items()):
        make_rows(count, seed).to_parquet(data[name], index=False)
    teacher = {"kind": "transformers", "model": str(tiny_base), "max_length": 16}
    return {"data": data, "teacher": teacher}


def test_a_trial_that_fails_is_told_once_and_stays_in_and_the_search_goes_on(
    search, with_weights, caplog
):
    rates = {"learning_rate": [0.02, 1e30]}
    space = {"family": "static", "dimensions": 4, "epochs": 1, **rates}
    found, drawn = search(6, space, **with_weights)
    good, wild = "static-4-epochs-1-learning-rate-0.02", "static-4-epochs-1-learning-rate-1e+30"
    assert {good, wild} == set(drawn)
    assert min(drawn.count(good), drawn.count(wild)) > 1
    assert {student.name for student in found.further} == {good, wild}
    assert trained(caplog).count(wild) == caplog.text.count("failed, the loss became") == 1


def test_what_a_family_does_not_allow_between_the_ends_is_a_failed_trial(search, caplog):
    """Terms of no characters are allowed, and of three, but not of one."""
    space = {"family": "bag_of_words", "max_features": 50, "characters": {"low": 0, "high": 3}}
    found, drawn = search(8, space)
    failed = re.findall(r"search: trial \d failed, .*the shortest run has", caplog.text)
    assert failed
    assert len(drawn) + len(failed) == 8
    assert {student.name for student in found.further} == set(drawn)
    assert 1 not in {student.characters for student in found.further}


@pytest.fixture(scope="module")
def tried(rows, tmp_path_factory):
    config = parse_config(rows | {"work_dir": str(tmp_path_factory.mktemp("tried"))}, "test")
    run = open_all(config)
    return Search(run, Evaluator(run, "validation"))


def test_a_student_is_scored_as_it_will_be_on_validation(tried):
    student = BagOfWordsStudent(max_features=60)
    point = tried.try_student(student)
    reference = train_one(tried.run, Trial(student, tried.run.config.seed))
    assert reference.reused
    scores = score_all(tried.run, [reference], "validation")
    assert point.quality == scores.candidates[student.name].quality.value
    assert point.p95_ms > 0
    assert tried.try_student(student.model_copy()) is point


def test_only_what_is_served_makes_a_shape():
    shape = LayersStudent(layers=2).shape
    assert LayersStudent(layers=2, learning_rate=1e-5, epochs=9).shape == shape
    others = [LayersStudent(layers=2, take="last"), LayersStudent(layers=2, width=16)]
    assert shape not in [student.shape for student in others]


def test_a_study_wants_quality_and_little_latency_and_knows_what_failed():
    study = start_study(seed=1)
    points = [Point(0.9, 2.0), None, Point(0.8, 1.0), Point(0.8, 2.0)]
    for point in points:
        tell(study, study.ask(), point)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.number for trial in study.best_trials] == [0, 2]
    assert isinstance(study.sampler, optuna.samplers.TPESampler)


@pytest.mark.parametrize(
    ("best", "find_point"),
    [
        (700, lambda size: Point(quality=-abs(size - 700), p95_ms=1.0)),
        (200, lambda size: Point(quality=0.5, p95_ms=abs(size - 200))),
    ],
)
def test_a_study_draws_nearer_to_what_is_better(best, find_point):
    space = {"family": "bag_of_words", "max_features": {"low": 1, "high": 1000}, "ngrams": [1, 2]}
    wanted = OptunaConfig(trials=30, spaces=[space])

    def draw_all(seed):
        study, sizes = start_study(seed), []
        for _ in range(wanted.trials):
            trial = study.ask()
            sizes.append(wanted.draw(trial).max_features)
            tell(study, trial, find_point(sizes[-1]))
        return sizes

    away = np.abs(np.array([draw_all(seed) for seed in range(4)]) - best)
    assert away[:, 10:].mean() < 0.7 * away[:, :10].mean()


def test_without_optuna_a_search_is_refused_before_any_work(rows, tmp_path, monkeypatch):
    wanted = {"optuna": {"trials": 1, "spaces": [WORDS]}}
    config = parse_config(rows | {"work_dir": str(tmp_path), "search": wanted}, "test")
    run, wanted = open_all(config), config.search.optuna
    monkeypatch.setattr(search_space, "find_spec", lambda _: None)
    for work in (
        lambda: check_config(config),
        lambda: search_students(run, wanted),
    ):
        with pytest.raises(InputError, match=r"pip install 'potstill\[optuna\]'"):
            work()
    assert not (tmp_path / "students").exists()


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"family": "layers", "layers": {"low": 1, "high": 5}}, "of 5 layers was asked for"),
        ({"family": "layers", "layers": 1, "width": [16, 20]}, "students.width is 20"),
        ({"family": "pretrained", "model": ["no/such/folder"]}, "no/such/folder"),
    ],
)
def test_the_ends_of_a_space_are_checked_like_students(rows, with_weights, tmp_path, space, said):
    wanted = {"optuna": {"trials": 1, "spaces": [space]}}
    written = rows | with_weights | {"work_dir": str(tmp_path / "work"), "search": wanted}
    with pytest.raises(InputError, match=said):
        check_config(parse_config(written, "test"))
