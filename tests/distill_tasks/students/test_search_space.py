import json
import pickle

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.students import SPACES, BagOfWordsStudent, LayersStudent, StaticStudent
from distill_tasks.students.search_settings import OptunaConfig

LAYERS = {
    "family": "layers",
    "layers": {"low": 1, "high": 3},
    "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "epochs": [2, 4],
    "batch_rows": 16,
}
WORDS = {"family": "bag_of_words", "max_features": [10, 20, 30]}


def make(*spaces):
    return OptunaConfig.model_validate({"trials": 5, "spaces": list(spaces)})


def write(space, **changes):
    return {
        "name": "plain",
        "data": {"train": "train.csv", "held_out": "held_out.csv"},
        "teacher": {"kind": "finetune", "base": "some/folder"},
        "students": [{"family": "bag_of_words"}],
        "search": {"optuna": {"trials": 5, "spaces": [space]}},
        "registry": {"model": "plain"},
    } | changes


def refusal(space, **changes):
    with pytest.raises(InputError) as caught:
        parse_config(write(space, **changes), "distill.yaml")
    return str(caught.value)


def draw(space, **params):
    return make(space).draw(FixedTrial({"space": 0} | {f"0.{k}": v for k, v in params.items()}))


def test_a_student_has_what_is_drawn_what_is_fixed_and_the_defaults():
    student = draw(LAYERS, layers=2, learning_rate=1e-4, epochs=4)
    expected = LayersStudent(layers=2, learning_rate=1e-4, epochs=4, batch_rows=16)
    assert student == expected
    assert type(student.layers) is int


def test_of_several_spaces_one_is_drawn_with_names_of_its_own():
    trial = FixedTrial({"space": 1, "1.max_features": 20})
    assert make(LAYERS, WORDS).draw(trial) == BagOfWordsStudent(max_features=20)
    assert list(trial.params) == ["space", "1.max_features"]


def test_a_drawn_number_is_rounded_to_what_its_name_shows_and_stays_between_the_ends():
    def rate(low, high, drawn):
        space = {"family": "static", "learning_rate": {"low": low, "high": high}}
        return draw(space, learning_rate=drawn).learning_rate

    assert rate(0.01, 0.1, 0.0123456) == 0.0123
    assert rate(0.0123456, 0.1, 0.0123456) == 0.0123456
    assert rate(0.01, 0.0123999, 0.0123999) == 0.0123999
    assert rate(1, 2, 1.9999) == 2


@given(st.integers(0, 2**31), st.floats(1e-7, 1), st.floats(1, 1e4))
def test_draws_lie_in_their_space_and_differ_where_their_names_do(seed, low, factor):
    ends = {"low": low, "high": low * factor, "log": True}
    space = {"family": "static", "dimensions": {"low": 2, "high": 5}, "learning_rate": ends}
    wanted = make(space | {"epochs": [1, 7]})
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(sampler=sampler)
    drawn = [wanted.draw(study.ask()) for _ in range(20)]
    for student in drawn:
        assert low <= student.learning_rate <= low * factor
        assert student.dimensions in range(2, 6)
        assert student.epochs in (1, 7)
    assert len({student.name for student in drawn}) == len(
        {student.model_dump_json() for student in drawn}
    )


def test_corners_have_both_ends_of_every_range_and_every_choice():
    space = LAYERS | {"take": ["spaced", "first", "last"]}
    corners = make(space).spaces[0].corners
    assert {student.layers for student in corners} == {1, 3}
    assert {student.learning_rate for student in corners} == {1e-5, 1e-3}
    assert {student.take for student in corners} == {"spaced", "first", "last"}
    config = parse_config(write(space), "test")
    assert config.search.corners == corners
    assert parse_config(write(space, search={}), "test").search.corners == []


def test_every_family_has_a_space_with_its_fields_and_defaults():
    assert [space.student.__name__ for space in SPACES] == [
        "LayersStudent",
        "PretrainedStudent",
        "StaticStudent",
        "BagOfWordsStudent",
    ]
    for space in SPACES:
        assert set(space.model_fields) == set(space.student.model_fields)
    (static,) = make({"family": "static"}).spaces
    assert static.corners == [StaticStudent()]


def test_a_search_survives_json_and_pickle():
    """Pickle, since one process may hand its configuration to another; none is ever stored so."""
    wanted = make(LAYERS, WORDS)
    assert OptunaConfig.model_validate(json.loads(wanted.model_dump_json())) == wanted
    assert OptunaConfig.model_validate(wanted.model_dump()) == wanted
    assert pickle.loads(pickle.dumps(wanted)) == wanted


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"layers": {"low": 0, "high": 3}}, "layers", "must be above 0, found 0."),
        ({"layers": {"low": 1, "high": 2.5}}, "layers", "must be a whole number, found 2.5."),
        ({"layers": {"low": 3, "high": 1}}, "layers", "low is above high"),
        ({"layers": [1, 0]}, "layers", "must be above 0, found 0."),
        ({"layers": []}, "layers", "a list that is not empty"),
        ({"layers": "two"}, "layers", "a whole number"),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, "learning_rate", "above 0"),
        ({"learning_rate": {"low": "a", "high": 1}}, "learning_rate.low", "a number"),
        ({"learning_rate": {"low": 1, "high": float("inf")}}, "learning_rate.high", "finite"),
        ({"take": {"low": 1, "high": 2}}, "take", "'first' or 'last'"),
        ({"freeze_embeddings": {"low": 0, "high": 1}}, "freeze_embeddings", "true or false"),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(change, key, said):
    message = refusal(LAYERS | change)
    assert message.startswith(f"distill.yaml: `search.optuna.spaces.0.{key}`: ")
    assert said in message
    assert "more after this one" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("space", "key", "meant"),
    [
        ({"family": "layers", "layers": 2, "epoch": 1}, "epoch", "epochs"),
        ({"family": "layers", "layers": {"low": 1, "high": 2, "lg": 1}}, "layers.lg", "log"),
    ],
)
def test_an_unknown_key_of_a_space_is_named_with_the_nearest_one(space, key, meant):
    message = refusal(space)
    assert f"unknown key `search.optuna.spaces.0.{key}` (did you mean '{meant}'?)" in message


def test_a_key_that_a_space_lacks_is_named():
    assert "the key `search.optuna.spaces.0.layers` is missing" in refusal({"family": "layers"})
    space = {"family": "layers", "layers": {"low": 1}}
    assert "the key `search.optuna.spaces.0.layers.high` is missing" in refusal(space)
    optuna_without = {"optuna": {"spaces": [WORDS]}}
    assert "`search.optuna.trials` is missing" in refusal(WORDS, search=optuna_without)


def test_an_unknown_family_is_answered_with_the_families():
    message = refusal({"family": "layer"})
    assert "`search.optuna.spaces.0.family`" in message
    assert all(word in message for word in ("layers", "static", "bag_of_words"))


def test_trials_count_towards_the_most_candidates():
    message = refusal(WORDS, max_candidates=5)
    assert (
        "the grid holds 1 students and search.optuna tries 5, more than max_candidates" in message
    )
    assert parse_config(write(WORDS, max_candidates=6), "test").search.optuna.trials == 5


def test_a_saved_teacher_refuses_a_space_that_needs_its_weights():
    message = refusal(LAYERS, teacher={"kind": "saved", "path": "answers.parquet"})
    assert "a saved teacher has no weights for layers-1-" in message
