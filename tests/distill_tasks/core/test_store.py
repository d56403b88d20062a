import errno
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from distill_tasks.core.errors import DiskFullError, InputError
from distill_tasks.core.store import MANIFEST, Store
from distill_tasks.scoring.intervals import Figure


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
        "import sys, time; from distill_tasks.core.store import Store\n"
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


HOLD = (
    "import sys, time; from distill_tasks.core.store import Store\n"
    "with Store(sys.argv[1]).lock('distill animals'): print('held', flush=True); time.sleep({})"
)


@contextmanager
def held_elsewhere(root, seconds):
    """Have another process hold a store for some seconds."""
    command = [sys.executable, "-c", HOLD.format(seconds), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        yield other
        other.kill()


def test_who_comes_second_waits_and_is_told_at_once_for_whom(store, caplog):
    with held_elsewhere(store.root, 2) as other, store.lock("distill fish", wait_minutes=2):
        assert other.wait() == 0  # it had ended, and was not waited for in vain
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("waiting up to 2 minutes for distill animals (process ")
    assert f"process {other.pid} on {socket.gethostname()}, since 20" in line
    assert str(store.root) in line
    said = json.loads((store.root / ".lock").read_text())
    assert (said["run"], said["pid"]) == ("distill fish", os.getpid())


def test_waiting_has_an_end_that_names_who_is_waited_for(store):
    start = time.monotonic()
    with (
        held_elsewhere(store.root, 60) as other,
        pytest.raises(InputError, match=rf"Another run .*distill animals \(process {other.pid}"),
        store.lock(wait_minutes=0.02),
    ):
        pass
    assert time.monotonic() - start >= 1.2


def test_ctrl_c_ends_the_wait(store):
    code = (
        "import logging, signal, sys\n"
        "from distill_tasks.core.store import Store; logging.basicConfig()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "with Store(sys.argv[1]).lock('distill fish', 9): pass"
    )
    command = [sys.executable, "-c", code, str(store.root)]
    with (
        held_elsewhere(store.root, 60),
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second,
    ):
        assert "waiting up to 9 minutes" in second.stderr.readline()
        second.send_signal(signal.SIGINT)
        assert second.wait(60) == -signal.SIGINT


def test_a_holder_that_did_not_say_who_it_is_is_waited_for_too(store):
    with held_elsewhere(store.root, 60):
        (store.root / ".lock").write_text('{"run": ')
        with pytest.raises(InputError, match="not written its name yet"), store.lock():
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


def probe_often(root):
    for _ in range(1500):
        Store(root).check_writable()


def build_often(root):
    for number in range(150):
        with Store(root).build("students", "d1", {"by": os.getpid()}) as draft:
            (draft / "weights").write_text(f"{os.getpid()} {number}")
        found = Store(root).manifest("students", "d1")
        assert found is None or set(found) == {"by"}


@pytest.mark.parametrize("work", [probe_often, build_often])
def test_two_processes_at_once_do_not_disturb_each_other(store, work):
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=work, args=(store.root,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    left = {path.name for path in store.root.glob("*/*")}
    assert left == ({"d1"} if work is build_often else set())
    if work is build_often:
        assert store.manifest("students", "d1")["by"] in [process.pid for process in both]


def test_what_failed_runs_left_half_written_is_swept_but_no_checkpoint(store):
    for name in ("labels/t1/a1.partial", "students/d1.partial/student/weights"):
        (store.root / name).parent.mkdir(parents=True)
        (store.root / name).write_text("half")
    (store.root / "students/d2.partial/student/checkpoints/checkpoint-3").mkdir(parents=True)
    with store.build("students", "d3", {}), store.lock():
        found = sorted(path.name for path in store.root.glob("students/*"))
        assert found == ["d2.partial", "d3.partial"]  # one to go on from, one at work now
        assert not list(store.root.glob("labels/*/*"))


def fail_to_build(store, name):
    with store.build("students", "d1", {}) as draft:
        (draft / name).touch()
        raise ValueError("broken")


@pytest.mark.parametrize(("name", "left"), [("weights", False), ("checkpoint-2", True)])
def test_a_build_that_fails_leaves_no_draft_unless_training_goes_on_from_it(store, name, left):
    with pytest.raises(ValueError, match="broken"):
        fail_to_build(store, name)
    assert store.folder("students", "d1.partial").exists() == left


def find_full(store, error):
    """Have a library of its own way of saying so find a disk full in a run."""
    with store.lock():
        try:
            raise error
        except Exception as from_below:
            raise RuntimeError("a library says") from from_below


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights.npz"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        OSError("1000000 requested and 4096 written"),
        ValueError("I/O error: No space left on device (os error 28)"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    ],
)
def test_a_full_disk_under_a_run_is_one_line(store, error):
    with pytest.raises(DiskFullError, match="The disk is full") as raised:
        find_full(store, error)
    assert "weights.npz" in str(raised.value) or error.args[0] != errno.ENOSPC
    assert len(str(raised.value).splitlines()) == 1
    assert raised.value.exit_code == 1


def test_other_errors_stay_as_they_are(store):
    with pytest.raises(RuntimeError, match="a library says"):
        find_full(store, OSError(errno.EACCES, "no"))


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


def test_what_was_written_before_digests_were_is_believed_if_it_has_the_keys_asked_for(
    store, caplog
):
    """Another file in its place, as a served model's description, has them not."""
    store.keep("students", "d", {"parameters": 3})
    manifest = store.folder("students", "d") / MANIFEST
    manifest.write_text(json.dumps({"parameters": 3}))
    assert store.manifest("students", "d", "parameters") == {"parameters": 3}
    manifest.write_text(json.dumps({"classes": ["a"]}))
    assert store.manifest("students", "d", "parameters", "seconds") is None
    assert "manifest.json has no parameters, seconds; it is made again" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"\xff", b"{}", b'{"identity": "an'])
def test_a_store_keeps_its_name_and_takes_another_where_it_is_damaged(store, damage, caplog):
    name = store.identity
    assert Store(store.root).identity == name
    (path,) = store.root.glob("identity/*/manifest.json")
    path.write_bytes(damage)
    other = store.identity
    assert store.identity == other != name
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
