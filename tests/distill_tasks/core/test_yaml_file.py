import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_tasks.core.errors import InputError
from distill_tasks.core.yaml_file import MOST_NODES, read_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "some.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_yaml(path)

    return read


@pytest.fixture
def refusal(read):
    def refuse(content):
        with pytest.raises(InputError) as caught:
            read(content)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    return refuse


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLAIN)
def test_what_is_no_fault_is_read_as_pyyaml_reads_it(read, written):
    text = yaml.safe_dump(written, allow_unicode=True)
    assert read(text) == yaml.safe_load(text)


def test_anchors_and_merged_keys_are_read_as_pyyaml_reads_them(read):
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\nd: [*a, *a, *b]\n"
    assert read(text) == yaml.safe_load(text)
    assert read(text)["c"] == {"x": 3, "y": 4}


@pytest.mark.parametrize(
    ("text", "key", "line", "first"),
    [
        ("seed: 1\nname: a\nseed: 2\n", "seed", 3, 1),
        ("students:\n- family: static\n  epochs: 1\n  epochs: [2, 3]\n", "epochs", 4, 3),
        ("{a: 1, b: 2,\n a: 1}", "a", 2, 1),
        ('a: 1\n"a": 2\n', "a", 2, 1),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(refusal, text, key, line, first):
    said = f"line {line}: the key '{key}' stands here and in line {first}; keep one"
    assert said in refusal(text)


def test_a_key_that_stands_twice_in_different_places_is_none_of_that(read):
    assert read("a: {x: 1}\nb: {x: 2}\n1: a\n'1': b\n")["b"] == {"x": 2}


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_nesting_without_end_is_refused(refusal, opening):
    closing = {"[": "]", "{a: ": "}"}[opening]
    assert "nested too deeply" in refusal(opening * 20_000 + closing * 20_000)


def test_aliases_that_multiply_are_refused_before_they_are_written_out(refusal):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    assert f"more than {MOST_NODES:,} values" in refusal("\n".join(lines))


@pytest.mark.parametrize("text", ["a: &a [*a]", "&a {b: {c: *a}}"])
def test_what_holds_itself_is_refused(refusal, text):
    assert "line 1: it holds itself" in refusal(text)


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\x02",
        b"\xff\xfe\xfa",
        b"a: b: c",
        b"a:\n\tb: 1",
        b"a: 1\n---\nb: 2",
        b"a: *nothing",
        b"a: 2026-13-45",
        b"a: " + 5000 * b"9",
        b"a: !!python/object/apply:os.system [true]",
        b"? [a, b]\n: c",
    ],
)
def test_what_is_no_yaml_is_one_line(refusal, content):
    assert "some.yaml is no YAML file: " in refusal(content)


def test_the_line_of_broken_yaml_is_named(refusal):
    assert re.search(r"is no YAML file: line 3: ", refusal("a: 1\nb: 2\nc: d: e\n"))


def test_a_path_that_no_file_can_have_is_one_line(tmp_path):
    for path in (tmp_path / "a\0b", tmp_path / ("x" * 5000), tmp_path):
        with pytest.raises(InputError, match="is no YAML file"):
            read_yaml(path)
