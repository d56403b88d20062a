import json
import os
import random
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_tasks.core.integrity import MANIFEST, DamagedError, read_manifest, write_manifest
from distill_tasks.core.store import Store
from distill_tasks.scoring.intervals import Figure

ABOUT = {"name": "static-8", "seconds": 1.5, "low": float("-inf"), 7: [None, True]}
READ = json.loads(json.dumps(ABOUT))


@pytest.fixture
def store(tmp_path):
    """A store with one student of three files."""
    store = Store(tmp_path / "work")
    with store.build("students", "d1", ABOUT) as draft:
        (draft / "student").mkdir()
        (draft / "student" / "weights.bin").write_bytes(bytes(range(256)) * 16)
        (draft / "student" / "model.json").write_text('{"classes": ["cats", "dogs"]}')
        (draft / "student" / "vocabulary.json").write_text('["purr", "bark"]')
    return store


@pytest.fixture
def folder(store):
    return store.folder("students", "d1")


def overwrite(path, change):
    written = bytearray(path.read_bytes())
    change(written)
    path.write_bytes(written)


def flip(written):
    written[len(written) // 2] ^= 1


def cut(written):
    del written[100:]


def swap_names(written):
    written[:] = written.replace(b"cats", b"x").replace(b"dogs", b"cats").replace(b"x", b"dogs")


def test_what_is_whole_is_read_again_as_it_was(store):
    assert store.manifest("students", "d1") == READ


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "student/weights.bin",
            flip,
            "student/weights.bin differs from the bytes that were written",
        ),
        ("student/weights.bin", cut, "student/weights.bin has 100 bytes, 4,096 were written"),
        ("student/model.json", swap_names, "student/model.json differs from the bytes"),
        ("student/vocabulary.json", None, "student/vocabulary.json is missing"),
        (MANIFEST, flip, MANIFEST),
        (MANIFEST, cut, "manifest.json cannot be read"),
        (MANIFEST, None, "manifest.json is missing"),
    ],
)
def test_damage_is_announced_by_name_once_and_the_entry_made_again(
    store, folder, caplog, name, change, said
):
    if change is None:
        (folder / name).unlink()
    else:
        overwrite(folder / name, change)
    assert store.manifest("students", "d1") is None
    assert store.manifest("students", "d1") is None
    (line,) = [record.getMessage() for record in caplog.records]
    named = "" if name == MANIFEST else " (static-8)"
    assert line.startswith(f"store: students/d1{named} is not whole: ")
    assert said in line
    assert line.endswith("; it is made again")
    assert (folder.parent / "d1.damaged").is_dir()  # to be looked at until it is made again
    with store.build("students", "d1", {"name": "new"}):
        pass
    assert store.manifest("students", "d1") == {"name": "new"}
    assert [path.name for path in folder.parent.iterdir()] == ["d1"]


def test_a_flip_in_any_byte_of_a_manifest_is_found_out(folder):
    """Or it changes nothing that is read: a space more, a digit in another notation."""
    path = folder / MANIFEST
    written, chance = path.read_bytes(), random.Random(0)
    for place in range(len(written)):
        flipped = bytearray(written)
        flipped[place] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            found = read_manifest(folder, "students/d1")
        except DamagedError:
            continue
        assert found is not None
        assert found.about == READ
        assert found.files is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.data())
def test_any_other_bytes_of_any_length_are_found_out(folder, data):
    path = folder / "student" / "vocabulary.json"
    written = path.read_bytes()
    other = data.draw(st.binary(max_size=30).filter(lambda drawn: drawn != written))
    path.write_bytes(other)
    with pytest.raises(DamagedError, match=r"vocabulary\.json"):
        read_manifest(folder, "students/d1")
    path.write_bytes(written)


def test_swapped_manifests_are_found_out(store):
    for key, seconds in (("a", 1), ("b", 2)):
        store.keep("labelling", key, {"seconds": seconds})
    first, second = (store.folder("labelling", key) / MANIFEST for key in "ab")
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert [store.manifest("labelling", key) for key in "ab"] == [None, None]


def test_a_linked_file_is_damaged_in_both_of_its_places(store, folder):
    with store.build("served", "d2", {}) as draft:
        os.link(folder / "student" / "weights.bin", draft / "weights.bin")
    with (folder / "student" / "weights.bin").open("r+b") as file:
        file.write(b"\xff\xff")
    assert store.manifest("served", "d2") is None
    assert store.manifest("students", "d1") is None


def test_files_are_read_once_in_a_process_unless_they_were_written_again(store, folder):
    from distill_tasks.core import integrity

    before = dict(integrity._digests)
    assert store.manifest("students", "d1") == READ
    assert integrity._digests == before  # known since they were written
    weights = folder / "student" / "weights.bin"
    about = weights.stat()
    overwrite(weights, flip)
    os.utime(weights, ns=(about.st_atime_ns, about.st_mtime_ns))  # whatever it says of its time
    assert store.manifest("students", "d1") is None


def forget_digests(folder):
    """Make a folder one of before digests were kept."""
    written = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(written["about"], indent=2))


def test_a_store_of_before_digests_answers_and_is_watched_from_then_on(store, folder, caplog):
    caplog.set_level("INFO", "potstill")
    forget_digests(folder)
    again = Store(store.root)
    assert again.manifest("students", "d1") == READ
    assert again.manifest("students", "d1") == READ
    (line,) = [record.getMessage() for record in caplog.records]
    assert "before files had digests; it is believed as it is now" in line
    overwrite(folder / "student" / "weights.bin", flip)
    assert again.manifest("students", "d1") is None


@pytest.mark.parametrize(
    ("name", "written"),
    [("logits.npy", b"\x93NUM"), ("corpus.json", b'{"a": '), ("train.parquet", b"PAR1 half")],
)
def test_what_cannot_be_read_at_all_was_damaged_before_digests(tmp_path, name, written, caplog):
    store = Store(tmp_path)
    with store.build("corpus", "d1", {}) as draft:
        (draft / name).write_bytes(written)
    forget_digests(store.folder("corpus", "d1"))
    assert store.manifest("corpus", "d1") is None
    assert f"{name} cannot be read" in caplog.text


def test_arrays_of_before_digests_have_checksums_of_their_own(tmp_path):
    store = Store(tmp_path)
    with store.build("students", "d1", {}) as draft:
        np.savez(draft / "weights.npz", a=np.arange(1000.0))
    overwrite(store.folder("students", "d1") / "weights.npz", lambda b: b.__setitem__(4000, 7))
    forget_digests(store.folder("students", "d1"))
    assert store.manifest("students", "d1") is None


def test_a_finding_of_before_digests_that_is_none_is_made_again(tmp_path, caplog):
    store = Store(tmp_path)
    store.keep("findings", "d1", {"valeu": 1})
    forget_digests(store.folder("findings", "d1"))
    found = store.remember("findings", "d1", Figure, lambda: Figure(0.5, 0.4, 0.6, 10))
    assert found == (Figure(0.5, 0.4, 0.6, 10), False)
    assert "manifest.json is no Figure" in caplog.text


def test_a_manifest_vouches_for_what_lies_there_when_it_is_written(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("1")
    write_manifest(tmp_path / "a", "kind/a", {"x": 1})
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert read_manifest(tmp_path / "b", "kind/a").about == {"x": 1}
    with pytest.raises(DamagedError, match="content"):
        read_manifest(tmp_path / "b", "kind/b")
    assert read_manifest(tmp_path / "c", "kind/c") is None
