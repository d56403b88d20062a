import hashlib
import itertools
import threading
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.core.digests import digest_texts
from distill_tasks.data.shards import LARGE_ROWS, MOST_SMALL, Shard, ShardFolder, to_numbers
from distill_tasks.data.soft_labels import RowIndex, SoftLabelStore

CLASSES = ("cats", "dogs")


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path):
    return str(tmp_path / "labels") if request.param == "folder" else f"memory://{uuid.uuid4()}"


def name(start, count):
    return [f"text {number}" for number in range(start, start + count)]


def answer(texts):
    """Return other logits for every text."""
    numbers = [float(text.split()[1]) for text in texts]
    return np.array([[number, -number] for number in numbers], np.float32)


def fill(store, batches, rows):
    for batch in range(batches):
        texts = name(batch * rows, rows)
        store.add(texts, answer(texts))


def count_files(root, name="t1"):
    folder = ShardFolder(root, name)
    return len([path for path in folder.fs.ls(folder.path, detail=False) if ".parquet" in path])


def assert_answered(store, texts):
    assert store.missing(texts) == []
    np.testing.assert_array_equal(store.read(texts).logits, answer(texts))


def test_many_small_shards_become_few_large_ones(root):
    store, rows = SoftLabelStore(root, "t1", CLASSES), 100
    batches = 3 * LARGE_ROWS // rows
    fill(store, batches, rows)
    texts = name(0, batches * rows)[::-1]
    assert count_files(root) < MOST_SMALL
    assert_answered(store, texts)
    assert_answered(SoftLabelStore(root, "t1", CLASSES), texts)


def test_a_store_of_single_rows_is_merged_too(root):
    store = SoftLabelStore(root, "t1", CLASSES)
    fill(store, MOST_SMALL + 3, 1)
    assert count_files(root) == 4
    assert_answered(SoftLabelStore(root, "t1", CLASSES), name(0, MOST_SMALL + 3))


def test_a_merged_shard_has_less_than_twice_the_rows_of_a_large_one(tmp_path):
    store = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    fill(store, 4, LARGE_ROWS - 1)
    sizes = [pq.read_metadata(path).num_rows for path in tmp_path.glob("t1/*.parquet")]
    assert sorted(sizes) == [2 * (LARGE_ROWS - 1)] * 2


def test_a_kill_while_shards_are_removed_leaves_rows_twice_and_loses_none(tmp_path):
    store = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    fill(store, MOST_SMALL - 1, 2)
    small = {path: path.read_bytes() for path in tmp_path.glob("t1/*.parquet")}
    last = name(2 * (MOST_SMALL - 1), 2)
    store.add(last, answer(last))
    assert len(list(tmp_path.glob("t1/*.parquet"))) == 1
    for path in list(small)[::2]:
        path.write_bytes(small[path])
    again, texts = SoftLabelStore(str(tmp_path), "t1", CLASSES), name(0, 2 * MOST_SMALL)
    assert_answered(again, texts)
    more = name(1000, MOST_SMALL)
    for text in more:
        again.add([text], answer([text]))
    assert_answered(SoftLabelStore(str(tmp_path), "t1", CLASSES), texts + more)


def test_who_reads_while_another_merges_sees_every_row(root, caplog):
    writer = SoftLabelStore(root, "t1", CLASSES)
    fill(writer, MOST_SMALL - 1, 2)
    shards = ShardFolder(root, "t1").read(len(CLASSES))
    first = [next(shards)]
    last = name(2 * (MOST_SMALL - 1), 2)
    writer.add(last, answer(last))  # now those that were listed are gone
    assert count_files(root) == 1
    seen = {digest for shard in itertools.chain(first, shards) for digest in shard.digests.tolist()}
    assert seen == set(to_numbers(digest_texts(name(0, 2 * MOST_SMALL))).tolist())
    assert not caplog.records


def test_two_writers_and_a_reader_at_once_lose_nothing(tmp_path, caplog):
    root, failed = str(tmp_path), []

    def work(start):
        try:
            store = SoftLabelStore(root, "t1", CLASSES)
            for at in range(start, start + 3 * MOST_SMALL):
                store.add(name(at, 1), answer(name(at, 1)))
        except BaseException as error:
            failed.append(error)
            raise

    SoftLabelStore(root, "t1", CLASSES)
    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 10_000)]
    for thread in threads:
        thread.start()
    known = 0
    while any(thread.is_alive() for thread in threads):
        unknown = len(SoftLabelStore(root, "t1", CLASSES).missing(name(0, 3 * MOST_SMALL)))
        assert 3 * MOST_SMALL - unknown >= known
        known = 3 * MOST_SMALL - unknown
    assert not failed
    texts = name(0, 3 * MOST_SMALL) + name(10_000, 3 * MOST_SMALL)
    assert_answered(SoftLabelStore(root, "t1", CLASSES), texts)
    assert not caplog.records


def test_a_damaged_merged_shard_costs_its_own_rows_alone(tmp_path, caplog):
    fill(SoftLabelStore(str(tmp_path), "t1", CLASSES), MOST_SMALL + 1, 1)
    sizes = {pq.read_metadata(path).num_rows: path for path in tmp_path.glob("t1/*.parquet")}
    written = bytearray(sizes[MOST_SMALL].read_bytes())
    written[len(written) // 2] ^= 1
    sizes[MOST_SMALL].write_bytes(written)
    again = SoftLabelStore(str(tmp_path), "t1", CLASSES)
    assert again.missing(name(0, MOST_SMALL + 1)) == name(0, MOST_SMALL)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "set aside as .damaged; the teacher is asked its rows again, 8,192 at most" in line


def test_shards_that_were_written_before_merging_are_read_and_merged(tmp_path):
    """As they were written until 2026-11-27, by the digest of their bytes."""
    folder = tmp_path / "t1"
    folder.mkdir()
    for start in range(0, 2 * LARGE_ROWS, 512):
        texts = name(start, 512)
        columns = {
            "row": pa.array(digest_texts(texts)),
            "logits": pa.FixedSizeListArray.from_arrays(answer(texts).ravel(), 2),
        }
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), buffer)
        written = buffer.getvalue().to_pybytes()
        (folder / f"{hashlib.sha256(written).hexdigest()}.parquet").write_bytes(written)
    store, texts = SoftLabelStore(str(tmp_path), "t1", CLASSES), name(0, 2 * LARGE_ROWS)
    assert_answered(store, texts)
    store.add(["text 90000"], answer(["text 90000"]))
    assert len(list(folder.glob("*.parquet"))) == 3
    assert_answered(SoftLabelStore(str(tmp_path), "t1", CLASSES), [*texts, "text 90000"])


def test_a_folder_with_brackets_in_its_name_keeps_its_answers(tmp_path):
    root = str(tmp_path / "run [1]")
    SoftLabelStore(root, "t1", CLASSES).add(["text 1"], answer(["text 1"]))
    assert_answered(SoftLabelStore(root, "t1", CLASSES), ["text 1"])


def test_a_shard_comes_back_from_its_bytes():
    digests, logits = to_numbers(digest_texts(["one", "two"])), np.eye(2, 3, dtype=np.float32)
    shard = Shard(digests, logits, np.array([0.25, np.nan], np.float32))
    back = Shard.parse(shard.to_bytes(), 3)
    np.testing.assert_array_equal(back.digests, shard.digests)
    np.testing.assert_array_equal(back.logits, shard.logits)
    np.testing.assert_array_equal(back.censored, shard.censored)
    assert Shard.parse(shard.to_bytes(), 2) is None


def test_a_shard_of_which_nothing_is_known_to_be_censored_has_the_columns_of_old_ones():
    digests, logits = to_numbers(digest_texts(["one", "two"])), np.eye(2, 3, dtype=np.float32)
    written = Shard(digests, logits, np.full(2, np.nan, np.float32)).to_bytes()
    assert pq.read_table(pa.BufferReader(written)).column_names == ["row", "logits"]
    assert np.isnan(Shard.parse(written, 3).censored).all()


@pytest.mark.parametrize("digests", [["0" * 15], ["0" * 17], ["zz" * 8], ["0" * 8, "0" * 8]])
def test_what_is_no_digest_is_no_number(digests):
    with pytest.raises(ValueError, match="hexadecimal"):
        to_numbers(digests)


NUMBERS = st.lists(st.integers(0, 30), max_size=20)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5))
def test_the_index_finds_what_a_dictionary_finds(steps):
    index, rows, count = RowIndex(), {}, 0
    for added, asked in steps:
        index.add(np.array(added, np.uint64))
        rows |= {number: count + at for at, number in enumerate(added)}
        count += len(added)
        found = index.find(np.array(asked, np.uint64))
        assert found.tolist() == [rows.get(number, -1) for number in asked]
