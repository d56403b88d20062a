import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.config import find_unknown_keys, load_config, parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.core.overrides import override, parse_overrides

PLAIN = {
    "name": "plain",
    "data": {"train": "train.csv", "held_out": "held_out.csv"},
    "teacher": {"kind": "finetune", "base": "some/folder"},
    "students": [{"family": "layers", "layers": [1, 2, 4]}, {"family": "bag_of_words"}],
    "registry": {"model": "plain"},
}


def refusal(overrides, written=PLAIN):
    with pytest.raises(InputError) as caught:
        parse_config(written, "distill.yaml", overrides)
    return str(caught.value)


def test_a_list_is_reached_by_the_place_that_it_has_before_the_grid_is_expanded():
    config = parse_config(PLAIN, "x", {"students.0.layers": [1, 2], "students.1.max_features": 9})
    assert [student.family for student in config.students] == [
        *("layers", "layers", "bag_of_words"),
    ]
    assert config.students[2].max_features == 9


def test_a_key_that_is_not_written_is_added_and_what_was_written_stays_as_it_was():
    before = copy.deepcopy(PLAIN)
    assert parse_config(PLAIN, "x", {"loss.alpha": 0.25}).loss.alpha == 0.25
    assert before == PLAIN


def test_what_two_places_share_by_an_alias_is_changed_in_one_alone():
    shared = {"family": "bag_of_words", "max_features": 50}
    done = override({"students": [shared, shared]}, {"students.0.max_features": 7})
    assert [student["max_features"] for student in done["students"]] == [7, 50]


def test_a_section_and_a_key_in_it_go_together_in_any_order():
    both = {"loss.alpha": 0.25, "loss": {"temperature": 3}}
    assert override(PLAIN, both)["loss"] == {"temperature": 3, "alpha": 0.25}
    assert override(PLAIN | {"cost": None}, {"cost.machine_hour": 1})["cost"] == {"machine_hour": 1}


def test_a_configuration_may_be_whole_only_with_its_overrides(tmp_path):
    path = tmp_path / "distill.yaml"
    path.write_text("name: plain\ndata: {train: a.csv, held_out: b.csv}\nstudents: nothing\n")
    rest = {key: PLAIN[key] for key in ("teacher", "students", "registry")}
    assert load_config(path, rest).name == "plain"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("studnets.0.layers", "unknown key `studnets` (did you mean 'students'?)"),
        ("students.0.layrs", "unknown key `students.0.layrs` (did you mean 'layers'?)"),
        ("loss.temprature", "unknown key `loss.temprature` (did you mean 'temperature'?)"),
        ("students.2.layers", "no item '2' in the list `students`. Allowed: 0 to 1"),
        ("students.-1.layers", "no item '-1' in the list `students`"),
        ("students.first.layers", "no item 'first' in the list `students`"),
        ("name.first", "`name` is 'plain', which has nothing inside"),
        ("loss..alpha", "a part of the key is empty"),
        ("", "a part of the key is empty"),
    ],
)
def test_a_key_that_leads_nowhere_is_refused_with_what_is_near(key, said):
    assert said in refusal({key: 1})


def test_a_value_that_is_not_allowed_is_refused_and_says_that_it_was_set():
    assert refusal({"loss.alpha": 7}).startswith("distill.yaml with loss.alpha set: `loss.alpha`:")
    assert "password or a token" in refusal({"tracking.uri": "http://ada:secret@mlflow"})
    assert "secret" not in refusal({"tracking.uri": "http://ada:secret@mlflow"})


def test_texts_are_read_as_yaml():
    texts = ["students.0.layers=[1, 2]", "name=a=b", "budget=", "seed=7", "export={onnx: true}"]
    assert parse_overrides(texts) == {
        "students.0.layers": [1, 2],
        "name": "a=b",
        "budget": None,
        "seed": 7,
        "export": {"onnx": True},
    }


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["seed"], "names no value. Write key=value"),
        (["=7"], "names no value"),
        (["seed=1", "seed=2"], "--set seed stands there twice"),
        (["seed=[1"], "--set seed is no YAML"),
        (["seed={a: 1, a: 2}"], "--set seed is no YAML: line 1: the key 'a' stands here"),
    ],
)
def test_a_text_that_sets_nothing_is_refused(texts, said):
    with pytest.raises(InputError) as caught:
        parse_overrides(texts)
    assert said in str(caught.value)


@given(key=st.text(max_size=30), value=st.none() | st.integers() | st.text(max_size=5))
def test_whatever_the_key_it_is_set_or_refused(key, value):
    try:
        done = override(PLAIN, {key: value})
    except InputError:
        return
    for part in key.split("."):
        done = done[int(part)] if isinstance(done, list) else done[part]
    assert done == value


def test_every_key_of_an_older_schema_is_named_at_once():
    older = PLAIN | {"loss": {"temprature": 2}, "sed": 1, "students": [{"family": "layers"}]}
    assert sorted(find_unknown_keys(older)) == [
        "`loss.temprature` (did you mean 'temperature'?)",
        "`sed` (did you mean 'seed'?)",
    ]
    assert find_unknown_keys(PLAIN) == []
