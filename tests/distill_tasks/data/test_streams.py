import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_tasks.core.errors import InputError
from distill_tasks.data.streams import BATCH_ROWS, WRITERS, read_batches

SUFFIXES = (".csv", ".jsonl", ".parquet")
ROWS = 2 * BATCH_ROWS + 7
TABLE = pd.DataFrame(
    {
        "id": [f"{row:05}" for row in range(ROWS)],
        "text": [f'row {row}, "so" said\nné' for row in range(ROWS)],
    }
)


def write(path):
    match path.suffix:
        case ".csv":
            TABLE.to_csv(path, index=False)
        case ".jsonl":
            TABLE.to_json(path, orient="records", lines=True)
        case ".parquet":
            TABLE.to_parquet(path, index=False)
    return path


def copy(source, target):
    with WRITERS[target.suffix](target) as writer:
        for batch in read_batches(source):
            count = len(batch.rows)
            answers = {"label": ["x"] * count, "confidence": [0.5] * count}
            writer.write(batch, answers | {"abstain": [False] * count})


@pytest.mark.parametrize("source", SUFFIXES)
@pytest.mark.parametrize("target", SUFFIXES)
def test_all_rows_come_through_in_their_order_with_columns_beside(tmp_path, source, target):
    copy(write(tmp_path / f"in{source}"), tmp_path / f"out{target}")
    readers = {
        ".csv": lambda path: pd.read_csv(path, dtype={"id": str}),
        ".jsonl": lambda path: pd.read_json(path, lines=True, dtype={"id": str}),
        ".parquet": pd.read_parquet,
    }
    found = readers[target](tmp_path / f"out{target}")
    expected = TABLE.assign(label="x", confidence=0.5, abstain=False)
    assert found.to_dict("list") == expected.to_dict("list")
    assert {path.name for path in tmp_path.iterdir()} == {f"in{source}", f"out{target}"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shares_of_the_file_grow_to_all_of_it(tmp_path, suffix):
    shares = [batch.share for batch in read_batches(write(tmp_path / f"in{suffix}"))]
    assert len(shares) == 3
    assert 0 < shares[0] <= shares[1] <= shares[2] == 1


def test_types_of_parquet_are_kept(tmp_path):
    schema = pa.schema(
        [("text", pa.string()), ("at", pa.timestamp("ns")), ("tags", pa.list_(pa.string()))]
    )
    columns = [["a", "b"], pa.array([1, None], pa.timestamp("ns")), [["x"], None]]
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "in.parquet")
    copy(tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(schema.names).equals(pa.table(columns, schema=schema))
    copy(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["tags"][0] == '["x"]'


@pytest.mark.parametrize("target", SUFFIXES)
def test_a_file_without_rows_gives_one_without_rows(tmp_path, target):
    (tmp_path / "in.csv").write_text("id,text\n")
    copy(tmp_path / "in.csv", tmp_path / f"out{target}")
    assert (tmp_path / f"out{target}").is_file()


def test_rows_with_other_keys_go_into_jsonl_and_not_into_a_table(tmp_path):
    lines = [{"text": "a"}] * BATCH_ROWS + [{"text": "b", "new": 1}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    copy(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    last = (tmp_path / "out.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["new"] == 1
    for suffix in (".csv", ".parquet"):
        with pytest.raises(InputError, match=r"Write \.jsonl"):
            copy(tmp_path / "in.jsonl", tmp_path / f"out{suffix}")
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_half_a_character_is_written_as_json_writes_it(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a\\ud800"}\n')
    copy(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "a\ud800"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.csv", b"id,text\n1,a,b\n", "line 2 has 3 cells, the header 2. Quote texts"),
        ("in.csv", b"id;text\n1;a\n", "is parted by ';'"),
        ("in.csv", "id,text\n1,größe\n".encode("cp1252"), "perhaps cp1252"),
        ("in.jsonl", b'{"text": "a"}\n{"text"\n', "line 2 is no JSON"),
        ("in.jsonl", b'["a"]\n', "line 1 is no object with keys"),
        ("in.parquet", b"PAR1", "cannot be read as .parquet"),
        ("in.xlsx", b"", "none of .csv, .parquet, .jsonl"),
    ],
)
def test_what_cannot_be_read_is_refused_and_leaves_nothing(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        copy(tmp_path / name, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        next(read_batches(tmp_path / "in.csv"))
