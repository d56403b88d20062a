import uuid
from pathlib import Path

import numpy as np
import pytest

from distill_tasks.core.errors import InputError
from distill_tasks.data.shards import MOST_SMALL
from distill_tasks.data.soft_labels import SoftLabelStore

CLASSES = ("cats", "dogs")


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path):
    return str(tmp_path / "labels") if request.param == "folder" else f"memory://{uuid.uuid4()}"


def answers(*numbers):
    return np.array([[number, -number] for number in numbers], np.float32)


def test_answers_come_back_in_the_order_asked(root):
    store = SoftLabelStore(root, "t1", CLASSES)
    store.add(["one", "two"], answers(1, 2))
    labels = store.read(["two", "one", "two"])
    np.testing.assert_array_equal(labels.logits, answers(2, 1, 2))
    assert (labels.classes, labels.teacher) == (CLASSES, "t1")


def test_a_new_process_goes_on_where_the_last_one_stopped(root):
    SoftLabelStore(root, "t1", CLASSES).add(["one", "two"], answers(1, 2))
    again = SoftLabelStore(root, "t1", CLASSES)
    assert again.missing(["three", "one", "two"]) == ["three"]
    again.add(["three"], answers(3))
    last = SoftLabelStore(root, "t1", CLASSES).read(["one", "two", "three"])
    np.testing.assert_array_equal(last.logits, answers(1, 2, 3))
    assert last.logits.dtype == np.float32


def test_only_distinct_unanswered_texts_are_asked(root):
    store = SoftLabelStore(root, "t1", CLASSES)
    store.add(["one"], answers(1))
    assert store.missing(["two", "one", "three", "two"]) == ["two", "three"]
    assert store.missing([]) == []


def test_texts_that_differ_by_a_space_are_different_rows(root):
    store = SoftLabelStore(root, "t1", CLASSES)
    store.add(["one"], answers(1))
    assert store.missing(["one ", "One"]) == ["one ", "One"]


def test_teachers_do_not_share_answers(root):
    SoftLabelStore(root, "t1", CLASSES).add(["one"], answers(1))
    assert SoftLabelStore(root, "t2", CLASSES).missing(["one"]) == ["one"]


def test_what_was_censored_is_kept_beside_answers_that_say_nothing_of_it(root):
    store = SoftLabelStore(root, "t1", CLASSES)
    store.add(["old"], answers(1))
    store.add(["one", "two"], answers(1, 2), np.array([0.25, 0], np.float32))
    for again in (store, SoftLabelStore(root, "t1", CLASSES)):
        found = again.read_censored(["two", "old", "one"])
        np.testing.assert_array_equal(found, [0, np.nan, 0.25])
        with pytest.raises(InputError, match="no answer to 1 rows"):
            again.read_censored(["three"])


def test_merged_answers_keep_what_was_censored(tmp_path):
    store = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    texts = [f"text {number}" for number in range(MOST_SMALL)]
    for number, text in enumerate(texts):
        known = None if number % 2 else np.array([number / 100], np.float32)
        store.add([text], answers(number), known)
    assert len(list(tmp_path.glob("t1/*.parquet"))) == 1
    found = SoftLabelStore(str(tmp_path), "t1", CLASSES).read_censored(texts)
    expected = [np.nan if number % 2 else number / 100 for number in range(MOST_SMALL)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_reading_what_was_never_asked_is_refused(root):
    store = SoftLabelStore(root, "t1", CLASSES)
    store.add(["one"], answers(1))
    with pytest.raises(InputError, match="t1 has no answer to 2 rows, the first being 'two'"):
        store.read(["one", "two", "three"])


def test_no_rows_have_no_answers(root):
    assert SoftLabelStore(root, "t1", CLASSES).read([]).logits.shape == (0, 2)


def test_adding_no_rows_leaves_the_store_readable(root):
    store = SoftLabelStore(root, "t1", CLASSES)
    store.add(["one"], answers(1))
    store.add([], np.empty((0, 2), np.float32))
    assert SoftLabelStore(root, "t1", CLASSES).missing(["one"]) == []


def test_another_class_order_is_refused(root):
    SoftLabelStore(root, "t1", CLASSES)
    with pytest.raises(InputError, match="has the classes cats, dogs; asked for dogs, cats"):
        SoftLabelStore(root, "t1", CLASSES[::-1])


def test_a_shard_that_a_kill_left_half_written_is_ignored(tmp_path):
    store = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    store.add(["one"], answers(1))
    (tmp_path / "t1" / "torn.partial").write_bytes(b"PAR1 half a shard")
    again = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    assert again.missing(["one", "two"]) == ["two"]


def test_a_class_order_that_a_kill_left_half_written_is_no_crash(tmp_path):
    (tmp_path / "t1").mkdir()
    (tmp_path / "t1" / "classes.json.partial").write_text('["yes",')
    assert SoftLabelStore(str(tmp_path), "t1", CLASSES).missing(["one"]) == ["one"]


def test_each_call_writes_one_shard_and_nothing_half_written(tmp_path):
    store = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    store.add(["one", "two"], answers(1, 2))
    store.add(["three"], answers(3))
    suffixes = sorted(Path(path).suffix for path in (tmp_path / "t1").iterdir())
    assert suffixes == [".json", ".parquet", ".parquet"]


@pytest.fixture
def shards(tmp_path):
    """A store with two shards of two answers, and their paths by the first text of each."""
    store = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    paths = {}
    for first, texts in (("one", ["one", "two"]), ("three", ["three", "four"])):
        before = set(tmp_path.glob("t1/*.parquet"))
        store.add(texts, answers(len(first), len(first) + 1))
        (paths[first],) = set(tmp_path.glob("t1/*.parquet")) - before
    return paths


def flip_a_logit(written):
    place = written.index(np.float32(3).tobytes())  # valid parquet, another answer
    return written[:place] + np.float32(300).tobytes() + written[place + 4 :]


def cut(written):
    return written[:60]


def empty(_):
    return b""


@pytest.mark.parametrize(
    ("damage", "old"),  # bytes flipped in a shard of before digests cannot be seen
    [(flip_a_logit, False), (cut, False), (cut, True), (empty, False), (empty, True)],
)
def test_a_damaged_shard_costs_its_own_rows_alone(tmp_path, shards, damage, old, caplog):
    path = shards["one"]
    if old:
        path = path.rename(path.with_name(f"{uuid.uuid4().hex}.parquet"))
    path.write_bytes(damage(path.read_bytes()))
    again = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    assert again.missing(["one", "two", "three", "four"]) == ["one", "two"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{path} is damaged and set aside as .damaged; the teacher is asked" in line
    assert path.with_name(f"{path.name}.damaged").is_file()
    np.testing.assert_array_equal(again.read(["three"]).logits, answers(5))
    again.add(["one", "two"], answers(3, 4))
    caplog.clear()
    last = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    np.testing.assert_array_equal(last.read(["two", "four"]).logits, answers(4, 6))
    assert not caplog.records


def test_two_shards_that_changed_names_lost_nothing(tmp_path, shards):
    one, other = (path.read_bytes() for path in shards.values())
    shards["one"].write_bytes(other)
    shards["three"].write_bytes(one)
    again = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    assert again.missing(["one", "two", "three", "four"]) == []


def test_shards_of_before_digests_are_read_and_watched_from_then_on(tmp_path, shards):
    old = shards["one"].rename(tmp_path / "t1" / f"{uuid.uuid4().hex}.parquet")
    assert SoftLabelStore(str(tmp_path), "t1", CLASSES).missing(["one", "two"]) == []
    assert not old.exists()
    shards["one"].write_bytes(flip_a_logit(shards["one"].read_bytes()))
    assert SoftLabelStore(str(tmp_path), "t1", CLASSES).missing(["one"]) == ["one"]


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize("written", [b'["ca', b"", b"{}", b"3", b"\xff", None])
def test_a_damaged_class_order_is_written_again_and_no_answer_is_lost(tmp_path, written):
    path = tmp_path / "t1" / "classes.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"cats", b"cbts") if written is None else written)
    again = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    np.testing.assert_array_equal(again.read(["one", "four"]).logits, answers(3, 6))
    assert path.read_bytes() == whole
    assert (tmp_path / "t1" / "classes.json.damaged").is_file()


@pytest.mark.usefixtures("shards")
def test_a_class_order_of_before_digests_is_believed(tmp_path):
    path = tmp_path / "t1" / "classes.json"
    path.write_text('["cats", "dogs"]')
    assert SoftLabelStore(str(tmp_path), "t1", CLASSES).missing(["one"]) == []
    with pytest.raises(InputError, match="has the classes cats, dogs; asked for dogs, cats"):
        SoftLabelStore(str(tmp_path), "t1", CLASSES[::-1])


def test_a_failed_write_adds_nothing(root):
    store = SoftLabelStore(root, "t1", CLASSES)
    with pytest.raises(ValueError, match="length"):
        store.add(["one", "two"], answers(1))
    assert SoftLabelStore(root, "t1", CLASSES).missing(["one"]) == ["one"]
    assert store.missing(["one"]) == ["one"]
