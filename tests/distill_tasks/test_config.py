import json
import os
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from distill_tasks import config
from distill_tasks.config import TrackingConfig, load_config, parse_config, write_schema
from distill_tasks.core.errors import InputError
from distill_tasks.core.yaml_file import read_yaml
from distill_tasks.stages.prepare import check_config
from distill_tasks.students import formats as variants

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "schema" / "distill.schema.json"
PRESETS = ROOT / "examples" / "presets"


@pytest.fixture
def plain():
    return {
        "name": "plain",
        "data": {"train": "train.csv", "held_out": "held_out.csv"},
        "teacher": {"kind": "finetune", "base": "some/folder"},
        "students": [{"family": "layers", "layers": 2}, {"family": "bag_of_words"}],
        "registry": {"model": "plain"},
    }


def refusal(written):
    with pytest.raises(InputError) as caught:
        parse_config(written, "distill.yaml")
    assert str(caught.value).startswith("distill.yaml: ")
    return str(caught.value)


def change(written, path, value):
    *parents, last = path
    for part in parents:
        written = written.setdefault(part, {}) if isinstance(written, dict) else written[part]
    written[last] = value


@pytest.mark.parametrize(
    ("path", "shown", "meant"),
    [
        (["sed"], "sed", "seed"),
        (["data", "txt_column"], "data.txt_column", "text_column"),
        (["teacher", "epoch"], "teacher.epoch", "epochs"),
        (["students", 1, "max_feature"], "students.1.max_feature", "max_features"),
        (["loss", "temprature"], "loss.temprature", "temperature"),
        (["loss", "balance_clases"], "loss.balance_clases", "balance_classes"),
        (["evaluate", "finalist"], "evaluate.finalist", "finalists"),
        (["select", "chose"], "select.chose", "choose"),
        (["select", "metrik"], "select.metrik", "metric"),
        (["export", "variant"], "export.variant", "variants"),
        (["measure", "call"], "measure.call", "calls"),
        (["measure", "batch_row"], "measure.batch_row", "batch_rows"),
        (["select", "objective"], "select.objective", "objectives"),
        (["tracking", "url"], "tracking.url", "uri"),
        (["registry", "alowed_drop"], "registry.alowed_drop", "allowed_drop"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_allowed_one(plain, path, shown, meant):
    change(plain, path, 1)
    message = refusal(plain)
    assert f"unknown key `{shown}` (did you mean '{meant}'?)" in message
    assert "Allowed here: " in message


def test_an_unknown_key_of_a_hub_table_is_named(plain):
    plain["data"]["train"] = {"hub": "a/b", "revision": "c", "split": "train", "subst": "d"}
    assert "unknown key `data.train.subst` (did you mean 'subset'?)" in refusal(plain)


def test_a_hub_table_without_revision_is_told_to_add_it(plain):
    plain["data"]["held_out"] = {"hub": "a/b", "split": "test"}
    assert "`data.held_out.revision` is missing" in refusal(plain)


@pytest.mark.parametrize(
    ("section", "key"), [(None, "data"), (None, "registry"), ("data", "train"), ("teacher", "base")]
)
def test_a_missing_key_is_named(plain, section, key):
    del (plain[section] if section else plain)[key]
    assert f"the key `{section + '.' if section else ''}{key}` is missing" in refusal(plain)


@pytest.mark.parametrize(
    ("path", "value", "bound"),
    [
        (["loss", "alpha"], 1.5, "at most 1"),
        (["loss", "temperature"], 0, "above 0"),
        (["loss", "temperature"], "atuo", "'auto'"),
        (["loss", "alpha"], "atuo", "'auto'"),
        (["loss", "balance_classes"], "perhaps", "true or false"),
        (["evaluate", "finalists"], 0, "at least 1"),
        (["evaluate", "seeds"], 21, "at most 20"),
        (["evaluate", "answer_precision"], 1, "below 1"),
        (["problem"], "multilabel", "'multi_label'"),
        (["select", "metric"], "f1", "'macro_f1'"),
        (["measure", "calls"], 19, "at least 20"),
        (["measure", "batch_rows"], 32, "a list"),
        (["measure", "batch_rows"], [], "a list that is not empty"),
        (["measure", "device"], "tpu", "'cuda'"),
        (["export", "variants"], "onnx", "'auto'"),
        (["cost", "machine_hour"], 0, "above 0"),
        (["teacher", "max_length"], 9000, "at most 8,192"),
        (["data", "validation_share"], 1, "below 1"),
        (["students", 0, "epochs"], 10**12, "at most 10,000"),
        (["students", 1, "ngrams"], 10**9, "at most 100"),
        (["students", 1, "max_features"], 10**19, "at most 10,000,000"),
        (["students", 0, "layers"], -1, "above 0"),
        (["students", 0, "layers"], [], "a whole number"),
        (["select", "choose"], "kne", "'knee'"),
        (["data", "train"], "a\0b.csv", "holds a NUL character"),
        (["teacher", "base"], "a\0b", "holds a NUL character"),
        (["work_dir"], "a\0b", "holds a NUL character"),
        (["name"], "two words", "letters, digits, dots, dashes and underscores alone"),
        (["registry", "model"], "a/b", "letters, digits, spaces"),
    ],
)
def test_a_wrong_value_is_shown_with_its_bound(plain, path, value, bound):
    change(plain, path, value)
    message = refusal(plain)
    assert f"`{'.'.join(map(str, path))}`: " in message
    assert bound in message
    assert f"found {value!r}" in message


@pytest.mark.parametrize(
    "mistakes",
    [
        {"loss": {"alpha": 2, "temperature": 0}},
        {"loss": {"alpa": 1, "temprature": 2}},
        {"loss": {"alpa": 1, "alpha": 2}},
        {"sed": 1, "nme": 2},
        {"seed": -1, "evaluate": {"seeds": "many"}},
        {"students": [{"family": "layers", "layers": 0}, {"family": "static", "epochs": 0}]},
        {"students": [{"family": "layers", "layers": [0, 1], "epochs": 0}]},
        {"data": {"train": {"hub": "a", "split": "b"}, "held_out": 5}},
    ],
)
def test_further_mistakes_are_counted(plain, mistakes):
    assert refusal(plain | mistakes).endswith("(1 more after this one)")


@pytest.mark.parametrize(
    "mistake",
    [
        {"loss": {"temperature": 0}},
        {"loss": {"alpha": "atuo"}},
        {"students": [{"family": "layers", "layers": [1, 2], "epochs": 0}]},
        {"data": {"train": "train.csv", "held_out": 5}},
    ],
)
def test_a_key_that_is_wrong_in_several_ways_counts_once(plain, mistake):
    assert "more after this one" not in refusal(plain | mistake)


def test_loss_may_be_left_to_the_run(plain):
    plain["loss"] = {"temperature": "auto", "alpha": "auto", "balance_classes": True}
    loss = parse_config(plain, "test").loss
    assert (loss.temperature, loss.alpha, loss.balance_classes) == ("auto", "auto", True)
    plain["loss"] = {"temperature": "3", "alpha": 1}
    loss = parse_config(plain, "test").loss
    assert (loss.temperature, loss.alpha) == (3.0, 1.0)


def test_what_is_left_out_is_a_single_label_judged_by_accuracy_with_controls(plain):
    config = parse_config(plain, "test")
    assert (config.problem, config.select.metric) == ("single_label", "accuracy")
    assert (config.evaluate.seeds, config.evaluate.controls) == (3, True)
    assert config.evaluate.answer_precision is None
    assert not config.loss.balance_classes
    assert (config.export.variants, config.measure.device) == ("auto", "cpu")
    assert (config.measure.batch_rows, config.select.objectives, config.cost) == ((32,), (), None)


def test_prices_need_the_price_of_the_machine(plain):
    assert "the key `cost.machine_hour` is missing" in refusal(plain | {"cost": {}})
    cost = parse_config(plain | {"cost": {"machine_hour": 0.5}}, "test").cost
    assert (cost.machine_hour, cost.teacher_1000_calls) == (0.5, None)


def test_a_misspelt_price_is_named(plain):
    message = refusal(plain | {"cost": {"machine_hour": 1, "teacher_1000_call": 3}})
    assert "unknown key `cost.teacher_1000_call` (did you mean 'teacher_1000_calls'?)" in message


@pytest.mark.parametrize(
    ("section", "key", "wrong", "allowed"),
    [
        ("export", "variants", "onnx_int4", "'onnx', 'onnx_int8' or 'onnx_int8_static'"),
        ("select", "objectives", "memory", "'parameters', 'disk_mb' or 'resident_mb'"),
        ("measure", "batch_rows", 0, "above 0"),
    ],
)
def test_a_wrong_item_of_a_list_is_shown_with_what_is_allowed(plain, section, key, wrong, allowed):
    message = refusal(plain | {section: {key: [wrong]}})
    assert f"`{section}.{key}" in message
    assert allowed in message
    assert f"found {wrong!r}" in message


def test_variants_batches_and_objectives_are_lists(plain):
    plain["export"] = {"variants": ["onnx_int8_static", "onnx"]}
    plain["measure"] = {"batch_rows": [1, 64]}
    plain["select"] = {"objectives": ["disk_mb", "parameters"]}
    config = parse_config(plain, "test")
    assert config.export.variants == ("onnx_int8_static", "onnx")
    assert config.measure.batch_rows == (1, 64)
    assert config.select.objectives == ("disk_mb", "parameters")
    assert parse_config(plain | {"export": {"variants": []}}, "test").export.variants == ()


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "weighted_f1", "micro_f1"])
def test_several_labels_may_be_judged_by_any_metric(plain, metric):
    plain |= {"problem": "multi_label", "select": {"metric": metric}}
    assert parse_config(plain, "test").select.metric == metric


def test_a_mistake_after_a_list_keeps_the_number_that_the_user_sees(plain):
    plain["students"][0]["layers"] = [1, 2, 3]
    plain["students"][1]["ngrams"] = 0
    assert "`students.1.ngrams`" in refusal(plain)


@pytest.mark.parametrize("kind", ["finetun", None])
def test_an_unknown_teacher_kind_is_answered_with_the_kinds(plain, kind):
    plain["teacher"]["kind"] = kind
    message = refusal(plain)
    assert "`teacher" in message
    assert all(word in message for word in ("finetune", "transformers", "saved"))


def test_an_unknown_family_is_answered_with_the_families(plain):
    plain["students"][0]["family"] = "layer"
    message = refusal(plain)
    assert "`students.0" in message
    assert all(word in message for word in ("layers", "static", "bag_of_words"))


def test_a_student_listed_twice_is_refused(plain):
    plain["students"].append({"family": "layers", "layers": [1, 2]})
    assert "students are listed twice: layers-2" in refusal(plain)


@pytest.mark.parametrize("students", [[], {"family": "layers", "layers": 2}, ["layers"], None])
def test_students_that_are_no_list_of_settings_are_refused(plain, students):
    plain["students"] = students
    assert "`students" in refusal(plain)


def test_a_saved_teacher_refuses_students_that_need_its_weights(plain):
    plain["teacher"] = {"kind": "saved", "path": "answers.parquet"}
    plain["students"].append({"family": "static"})
    message = refusal(plain)
    assert "layers-2, static-256" in message
    assert "bag_of_words" in message
    plain["students"] = [{"family": "bag_of_words"}]
    assert parse_config(plain, "test").students[0].name == "bag-of-words-50000"


def test_lists_span_the_grid_and_every_name_tells_what_is_not_default(plain):
    plain["students"] = [
        {"family": "static", "dimensions": [8, 16], "learning_rate": [0.01, 0.5]},
        {"family": "layers", "layers": [1], "epochs": 3},
    ]
    assert [student.name for student in parse_config(plain, "test").students] == [
        "static-8",
        "static-8-learning-rate-0.5",
        "static-16",
        "static-16-learning-rate-0.5",
        "layers-1-epochs-3",
    ]


FOUR_LISTS = {
    "family": "static",
    "dimensions": list(range(1, 101)),
    "epochs": list(range(1, 101)),
    "learning_rate": [rate / 100 for rate in range(1, 101)],
    "sif": [share / 100 for share in range(1, 101)],
}


@pytest.mark.parametrize(
    ("allowed", "said"), [(200, "200"), (10**9, "10,000"), ("many", "10,000"), (0, "10,000")]
)
def test_a_grid_is_counted_before_it_is_made(plain, allowed, said):
    plain |= {"students": [FOUR_LISTS, {"family": "bag_of_words"}], "max_candidates": allowed}
    start = time.process_time()  # of this process: others may keep the machine busy
    message = refusal(plain)
    assert time.process_time() - start < 5
    assert f"the grid holds 100,000,001 students, more than max_candidates ({said})" in message


def test_thousands_of_wrong_students_are_one_line_at_once(plain):
    lists = {key: FOUR_LISTS[key] for key in ("family", "dimensions", "epochs")}
    plain |= {"students": [lists | {"sfi": 1}], "max_candidates": 10_000}
    start = time.process_time()
    assert "unknown key `students.0.sfi` (did you mean 'sif'?)" in refusal(plain)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["loss"], 5, "`loss`: must be keys with values, found 5"),
        (["data"], None, "`data`: must be keys with values, found nothing"),
        (["teacher"], "bert", "`teacher`: must be keys with values, found 'bert'"),
        (
            ["teacher", "kind"],
            "tune",
            "unknown kind 'tune' (did you mean 'finetune'?)",
        ),
        (["students"], {"family": "static"}, "`students`: must be a list, found {'fam"),
        (["students"], {"static"}, "`students.0`: must be keys with values"),
        (["students", 0], "static", "`students.0`: must be keys with values"),
        (
            ["students", 0],
            {"epochs": 1},
            "the key `students.0.family` is missing. Allowed: bag",
        ),
        (
            ["name"],
            date(2026, 11, 26),
            "`name`: must be text, in quotes if it looks",
        ),
        ([1], "x", "the key 1 is no text. Put it in quotes."),
        (["measure", "batch_rows"], [10**12], "`measure.batch_rows.0`: must be at most"),
        (["name"], "x" * 10**6, f"at most 200 characters, found '{79 * 'x'}…."),
    ],
)
def test_what_is_wrong_is_said_without_python(plain, path, value, said):
    change(plain, path, value)
    assert said in refusal(plain)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def list_places(written, place=()):
    """Return the path of everything in plain data."""
    parts = written.items() if isinstance(written, dict) else enumerate(written)
    for key, value in parts:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from list_places(value, (*place, key))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_anything_anywhere_is_taken_or_refused_in_one_line(data):
    written = {
        "name": "plain",
        "data": {"train": "train.csv", "held_out": {"hub": "a", "revision": "b", "split": "c"}},
        "teacher": {"kind": "finetune", "base": "some/folder"},
        "students": [{"family": "layers", "layers": [1, 2]}, {"family": "bag_of_words"}],
        "search": {"optuna": {"trials": 2, "spaces": [{"family": "static", "dimensions": [1]}]}},
        "loss": {"terms": {"kl": 1.0}, "temperature": "auto"},
        "registry": {"model": "plain"},
    }
    place = data.draw(st.sampled_from([*list_places(written)]))
    change(written, place, data.draw(ANYTHING))
    said = ""
    try:
        parse_config(written, "distill.yaml")
    except InputError as error:
        said = str(error)
    assert len(said) < 500


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_without_settings_is_refused(tmp_path, text):
    path = tmp_path / "distill.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="holds no settings"):
        load_config(path)


@pytest.mark.parametrize("content", [b"a: [1,", b"\xff\xfe\xfa", b"a: b: c"])
def test_a_broken_file_is_refused(tmp_path, content):
    path = tmp_path / "distill.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no YAML"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"distil\.yaml does not exist"):
        load_config(tmp_path / "distil.yaml")
    with pytest.raises(InputError, match="is no YAML"):
        load_config(tmp_path)


def test_a_path_below_a_regular_file_does_not_exist(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        load_config(tmp_path / "file" / "distill.yaml")


def test_a_written_file_is_read(tmp_path, plain):
    path = tmp_path / "distill.yaml"
    path.write_text(json.dumps(plain))  # JSON is YAML
    assert load_config(path) == parse_config(plain, "test")


def test_settings_are_frozen(plain):
    config = parse_config(plain, "test")
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.students[0].layers = 1


@pytest.fixture
def without_onnx(monkeypatch):
    """A machine on which the extra `onnx` is half installed."""
    found = variants.find_spec
    monkeypatch.setattr(
        variants, "find_spec", lambda name: None if name.startswith("onnxr") else found(name)
    )


@pytest.mark.usefixtures("without_onnx")
def test_a_variant_whose_packages_are_absent_is_refused_before_any_work(written):
    written["export"] = {"variants": ["onnx", "onnx_int8"]}
    with pytest.raises(InputError) as caught:
        check_config(parse_config(written, "test"))
    said = "export.variants asks for onnx, onnx_int8, but onnxruntime is not installed."
    assert str(caught.value).startswith(said)
    assert "pip install 'potstill[onnx]'" in str(caught.value)


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("wanted", ["auto", []])
def test_without_its_packages_variants_that_nobody_names_are_not_made(written, wanted):
    config = parse_config(written | {"export": {"variants": wanted}}, "test")
    check_config(config)
    assert variants.choose_variants(config.export) == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_stopwatch_on_cuda_is_refused_where_there_is_none(written):
    written["measure"]["device"] = "cuda"
    with pytest.raises(
        InputError, match=r"measure\.device is cuda, but torch finds no CUDA device"
    ):
        check_config(parse_config(written, "test"))


def test_the_committed_schema_is_the_one_of_the_code():
    assert SCHEMA.read_text(encoding="utf-8") == write_schema()


def test_every_field_of_the_schema_is_described():
    schema = json.loads(write_schema())
    bare = [
        f"{name}.{key}"
        for name, part in {"DistillConfig": schema, **schema["$defs"]}.items()
        for key, field in part.get("properties", {}).items()
        if not field.get("description")
    ]
    assert bare == []


def test_a_grid_that_is_too_large_is_refused_before_anything_is_spent(plain):
    plain["students"] = [{"family": "bag_of_words", "max_features": list(range(10, 40))}]
    plain["max_candidates"] = 29
    assert (
        "the grid holds 30 students, more than max_candidates (29); shorten its lists, or raise "
        "max_candidates" in refusal(plain)
    )
    plain["max_candidates"] = 30
    assert len(parse_config(plain, "test").students) == 30


@pytest.mark.parametrize("path", [".potstill", "/data/store", "nights/1", "a:b", "C:x", "x~y"])
def test_a_local_work_dir_stays_as_it_is_written(written, path):
    assert parse_config(written | {"work_dir": path}, "test").work_dir == path


def test_a_work_dir_below_home_is_where_home_is(written, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse_config(written | {"work_dir": "~/x"}, "test").work_dir == "/home/someone/x"
    assert parse_config(written | {"work_dir": "~"}, "test").work_dir == "/home/someone"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://bucket/x", "it must be a path of this machine"),
        ("gs://bucket", "it must be a path of this machine"),
        ("file:///data", "it must be a path of this machine"),
        ("", "it must be a path of this machine"),
        ("~nobody-of-this-name/x", "no such user"),
    ],
)
def test_a_work_dir_that_is_no_local_path_is_refused(written, path, said):
    with pytest.raises(InputError, match=f"`work_dir`: .*{said}.*found {re.escape(repr(path))}"):
        parse_config(written | {"work_dir": path}, "test")


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_completes_a_configuration(plain, preset):
    config = parse_config(plain | read_yaml(preset), str(preset))
    assert config.budget.minutes > 0
    assert config.evaluate.finalists <= len(config.students) <= 12


def test_where_mlflow_records_by_default_is_what_its_variable_says():
    show = "from distill_tasks.config import TrackingConfig; print(TrackingConfig().uri)"
    for uri in ("", "https://mlflow.example.org"):
        known = os.environ | {"MLFLOW_TRACKING_URI": uri}
        done = subprocess.run([sys.executable, "-c", show], env=known, stdout=-1, text=True)
        assert done.stdout.strip() == (uri or "sqlite:///mlflow.db")


def test_a_password_in_the_variable_of_mlflow_is_refused(monkeypatch):
    monkeypatch.setattr(config, "TRACKING_URI", "https://ann:geheim@mlflow.example.org")
    with pytest.raises(InputError, match=r"`tracking.uri` holds a password") as caught:
        TrackingConfig()
    assert "geheim" not in str(caught.value)
