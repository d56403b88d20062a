import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.core.digests import LENGTH, digest, digest_file, digest_folder, digest_texts


def test_a_digest_is_the_same_in_another_process():
    parts = "digest('teacher', {'b': [1, 2.5, None], 'a': 'é'})"
    code = f"from distill_tasks.core.digests import digest; print({parts})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == digest("teacher", {"a": "é", "b": (1, 2.5, None)})


def test_a_digest_is_sixteen_hexadecimal_characters():
    assert len(digest("a")) == LENGTH == 16
    int(digest("a"), 16)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b"), ("ab",)),
        (("a", "b"), ("b", "a")),
        ((1,), ("1",)),
        ((None,), ("null",)),
        ((["a"], "b"), (["a", "b"],)),
        (({"a": 1},), ({"a": 2},)),
    ],
)
def test_different_parts_have_different_digests(one, other):
    assert digest(*one) != digest(*other)


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError):
        digest({1, 2})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_have_equal_digests_exactly_when_they_are_equal(texts):
    digests = digest_texts(texts)
    assert len(digests) == len(texts)
    assert len(set(digests)) == len(set(texts))
    assert digest_texts(reversed(texts)) == digests[::-1]


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"\x00\x01" * 1000)
    assert digest_file(path) == hashlib.sha256(b"\x00\x01" * 1000).hexdigest()[:LENGTH]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "deep" / "weights").write_text("1")
    return folder


def test_a_folder_keeps_its_digest_when_moved(folder, tmp_path):
    before = digest_folder(folder)
    assert digest_folder(folder.rename(tmp_path / "elsewhere")) == before


def test_a_changed_byte_name_or_place_changes_the_digest_of_a_folder(folder):
    seen = {digest_folder(folder)}
    (folder / "deep" / "weights").write_text("2")
    seen.add(digest_folder(folder))
    (folder / "deep" / "weights").rename(folder / "deep" / "weight")
    seen.add(digest_folder(folder))
    (folder / "deep" / "weight").rename(folder / "weight")
    seen.add(digest_folder(folder))
    (folder / "more").touch()
    assert len(seen | {digest_folder(folder)}) == 5
