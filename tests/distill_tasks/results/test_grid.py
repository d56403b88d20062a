import pytest
from builders import make_student

from distill_tasks.config import parse_config
from distill_tasks.core.errors import NothingQualifiesError
from distill_tasks.results.grid import Grid, Trial, first_trials, further_trials
from distill_tasks.students import BagOfWordsStudent


def test_the_first_trials_are_the_grid_from_one_seed(config):
    trials = first_trials(config)
    assert [trial.name for trial in trials] == [student.name for student in config.students]
    assert {(trial.seed, trial.distilled, trial.served) for trial in trials} == {(7, True, True)}


def test_the_further_trials_are_other_seeds_and_controls_of_the_finalists(written):
    written["evaluate"] = {"seeds": 3, "controls": True}
    config = parse_config(written, "test")
    layers, _, static, words = (student.name for student in config.students)
    grid = Grid(trials=first_trials(config))
    trials = grid.further_trials(config, [words, static])
    assert [trial.name for trial in trials] == [
        f"{static}-seed-8",
        f"{static}-seed-9",
        *(f"{static}-on-gold-seed-{seed}" for seed in (7, 8, 9)),
        f"{words}-on-gold-seed-7",  # sees all rows at once: another seed is the same student
    ]
    assert not any(trial.served for trial in trials)
    assert not {trial.name for trial in trials} & {trial.name for trial in first_trials(config)}
    assert grid.further_trials(config, []) == []
    assert [trial.seed for trial in grid.further_trials(config, [layers])] == [8, 9, 7, 8, 9]


@pytest.mark.parametrize(
    ("evaluate", "data"),
    [({"seeds": 2, "controls": False}, {}), ({"seeds": 2}, {"label_column": None})],
)
def test_controls_may_be_declined_and_need_gold(written, evaluate, data):
    changes = {"evaluate": evaluate, "data": written["data"] | data}
    config = parse_config(written | changes, "test")
    trials = [t for student in config.students for t in further_trials(config, student)]
    assert [trial.seed for trial in trials] == [8] * 3
    assert all(trial.distilled for trial in trials)


WORDS_STUDENTS = [BagOfWordsStudent(max_features=count) for count in (10, 20, 30)]


TRIALS = [Trial(student, 7) for student in WORDS_STUDENTS]


def failing(*broken):
    """Return what trains every trial but these, and the names it was asked for."""
    asked = []

    def train(trial):
        asked.append(trial.name)
        if trial.name in broken:
            raise RuntimeError("out of\n memory")
        return make_student(trial.name, student=trial.student.name)

    return train, asked


def test_a_student_that_fails_is_left_out_with_its_reason_and_the_others_go_on(caplog):
    train, asked = failing("bag-of-words-20")
    grid = Grid().add(TRIALS, train)
    assert [student.name for student in grid.students] == ["bag-of-words-10", "bag-of-words-30"]
    reason = "its training failed: bag-of-words-20: RuntimeError: out of memory"
    assert grid.failed == {"bag-of-words-20": reason}
    assert f"train bag-of-words-20: left out, {reason}" in caplog.text
    assert asked == [trial.name for trial in TRIALS]


def test_where_a_further_seed_or_control_fails_the_student_leaves_the_grid():
    grid = Grid().add(TRIALS, failing()[0])
    further = [
        Trial(student, seed, distilled=distilled, served=False)
        for student in WORDS_STUDENTS[:2]
        for seed, distilled in ((8, True), (7, False))
    ]
    train, asked = failing("bag-of-words-10-seed-8")
    later = grid.add(further, train)
    assert {student.student for student in later.students} == {"bag-of-words-20", "bag-of-words-30"}
    assert "bag-of-words-10-seed-8: RuntimeError" in later.failed["bag-of-words-10"]
    assert "bag-of-words-10-on-gold-seed-7" not in asked  # the rest of it is not tried
    assert (len(grid.students), grid.failed) == (3, {})


def test_where_every_student_fails_the_run_ends_with_all_reasons():
    train, _ = failing(*(trial.name for trial in TRIALS))
    with pytest.raises(NothingQualifiesError) as caught:
        Grid().add(TRIALS, train)
    assert str(caught.value).startswith(
        "No student could be trained. bag-of-words-10: its training"
    )
    assert str(caught.value).count("out of memory") == 3


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_whoever_stops_the_run_stops_it(stop):
    def train(_):
        raise stop

    with pytest.raises(stop):
        Grid().add(TRIALS, train)
