import re
import subprocess
import sys

import pytest

from distill_tasks.errors import InputError
from distill_tasks.intervals import Figure
from distill_tasks.store import MANIFEST, Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "work")


def test_a_draft_becomes_the_folder_with_its_manifest(store):
    with store.build("students", "d1", {"name": "layers-1"}) as draft:
        assert draft != store.folder("students", "d1")
        (draft / "weights").write_text("w")
        assert not store.folder("students", "d1").exists()
    assert not draft.exists()
    assert (store.folder("students", "d1") / "weights").read_text() == "w"
    assert store.manifest("students", "d1") == {"name": "layers-1"}


def test_the_manifest_may_be_filled_while_building(store):
    manifest = {}
    with store.build("students", "d1", manifest):
        manifest["seconds"] = 3
    assert store.manifest("students", "d1") == {"seconds": 3}


def test_nothing_built_has_no_manifest(store):
    assert store.manifest("students", "d1") is None
    store.folder("students", "d1").mkdir(parents=True)
    assert store.manifest("students", "d1") is None


def test_a_killed_build_is_continued(store):
    def be_killed():
        with store.build("students", "d1", {}) as draft:
            (draft / "checkpoint").write_text("epoch 1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_killed()
    assert store.manifest("students", "d1") is None
    assert not store.folder("students", "d1").exists()
    with store.build("students", "d1", {}) as draft:
        assert (draft / "checkpoint").read_text() == "epoch 1"
    assert (store.folder("students", "d1") / "checkpoint").is_file()


def test_building_again_replaces_all_of_the_folder(store):
    for name in ("old", "new"):
        with store.build("students", "d1", {"name": name}) as draft:
            (draft / name).touch()
    found = {path.name for path in store.folder("students", "d1").iterdir()}
    assert found == {"new", MANIFEST}
    assert store.manifest("students", "d1") == {"name": "new"}


def test_a_failed_build_leaves_the_complete_folder_alone(store):
    with store.build("students", "d1", {"name": "old"}):
        pass
    with pytest.raises(ValueError, match="broken"), store.build("students", "d1", {}):
        raise ValueError("broken")
    assert store.manifest("students", "d1") == {"name": "old"}


def test_kinds_and_digests_do_not_meet(store):
    for kind, digest in [("students", "d1"), ("students", "d2"), ("teachers", "d1")]:
        with store.build(kind, digest, {"is": [kind, digest]}):
            pass
    assert store.manifest("students", "d1") == {"is": ["students", "d1"]}
    assert store.manifest("teachers", "d1") == {"is": ["teachers", "d1"]}


def test_a_second_run_is_refused_until_the_first_ends(store):
    with (
        store.lock(),
        pytest.raises(InputError, match=f"working in {re.escape(str(store.root))}"),
        Store(store.root).lock(),
    ):
        pass
    with Store(store.root).lock():
        pass


def test_another_process_is_refused_and_kill_9_frees_the_lock(store):
    code = (
        "import sys, time; from distill_tasks.store import Store\n"
        "with Store(sys.argv[1]).lock(): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError), store.lock():
            pass
        other.kill()
        other.wait()
        with store.lock():
            pass


def test_the_lock_goes_with_an_error(store):
    with pytest.raises(ValueError, match="broken"), store.lock():
        raise ValueError("broken")
    with store.lock():
        pass


def test_a_writable_root_is_made_and_left_clean(store):
    store.check_writable()
    assert list(store.root.iterdir()) == []


def test_a_root_below_a_regular_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "work"):
        with pytest.raises(InputError, match=r"cannot be written.*Name a folder"):
            Store(root).check_writable()
        with pytest.raises(InputError), Store(root).lock():
            pass


def test_a_finding_is_made_once_and_comes_back_as_it_was(store):
    made = []

    def make():
        made.append(1)
        return Figure(0.5, float("-inf"), 0.75, 10)

    first = store.remember("findings", "d1", Figure, make)
    again = store.remember("findings", "d1", Figure, make)
    assert first == (Figure(0.5, float("-inf"), 0.75, 10), False)
    assert again == (first[0], True)
    assert len(made) == 1
