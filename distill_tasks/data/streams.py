"""Rows of a file in batches, and the same rows written with further columns: csv, jsonl, parquet.

A file of any size goes through in the memory of one batch.
"""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from distill_tasks.core.errors import InputError
from distill_tasks.data.tables import FORMATS, describe_encoding, refuse_other_separator

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1024

Row = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Some rows of a file in their order."""

    columns: list[str]
    rows: list[Row]
    share: float
    """Share of the file that has been read."""
    table: pa.RecordBatch | None = None
    """The same rows with the types of a parquet file."""


def read_batches(path: Path) -> Iterator[Batch]:
    """Yield the rows of a file; the first batch has its columns even if there are no rows.

    Raises InputError for a missing file, another format, or a line that cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist. Give one of {', '.join(FORMATS)}.")
    if path.suffix not in FORMATS:
        raise InputError(f"{path} is none of {', '.join(FORMATS)}. Convert it.")
    read = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}[path.suffix]
    try:
        yield from read(path)
    except (ValueError, OSError, csv.Error) as error:
        broken = isinstance(error, UnicodeDecodeError)
        reason = describe_encoding(path) if broken else str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as {path.suffix}: {reason}") from None


def _read_csv(path: Path) -> Iterator[Batch]:
    """Yield the rows of a csv, every cell as the text that is written there."""
    refuse_other_separator(path)
    with path.open("rb") as raw:
        reader = csv.reader(io.TextIOWrapper(raw, "utf-8-sig", newline=""))
        columns, size = next(reader, []), max(path.stat().st_size, 1)
        rows: list[Row] = []
        for cells in reader:
            if len(cells) > len(columns):
                raise ValueError(
                    f"line {reader.line_num} has {len(cells)} cells, the header {len(columns)}. "
                    "Quote texts that contain a comma."
                )
            if cells:
                missing = [""] * (len(columns) - len(cells))
                rows.append(dict(zip(columns, [*cells, *missing], strict=True)))
            if len(rows) == BATCH_ROWS:
                yield Batch(columns, rows, raw.tell() / size)
                rows = []
        yield Batch(columns, rows, 1.0)


def _read_jsonl(path: Path) -> Iterator[Batch]:
    size, rows = max(path.stat().st_size, 1), list[Row]()
    with path.open("rb") as raw:
        for number, line in enumerate(raw, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f'line {number} is no object with keys, as {{"text": …}}.')
            rows.append(row)
            if len(rows) == BATCH_ROWS:
                yield Batch(_join_keys(rows), rows, raw.tell() / size)
                rows = []
    yield Batch(_join_keys(rows), rows, 1.0)


def _read_parquet(path: Path) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names, total, done = file.schema_arrow.names, max(file.metadata.num_rows, 1), 0
        for table in file.iter_batches(BATCH_ROWS):
            done += table.num_rows
            yield Batch(names, table.to_pylist(), done / total, table)
        if not done:
            yield Batch(names, [], 1.0, file.schema_arrow.empty_table().to_batches()[0])


def _join_keys(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


class RowWriter(ABC):
    """Writes rows beside their place, and moves them there when all are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.draft = path.with_name(f".{path.name}.partial")
        self.open_files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.open_files.close()
        if kind is None:
            self.draft.replace(self.path)
        else:
            self.draft.unlink(missing_ok=True)

    @abstractmethod
    def write(self, batch: Batch, further: dict[str, list[Any]]) -> None:
        """Write a batch with further columns beside its own."""


class CsvWriter(RowWriter):
    """Writes a csv; lists and objects in it as JSON."""

    columns: list[str] | None = None

    def write(self, batch: Batch, further: dict[str, list[Any]]) -> None:
        """Write a batch; raise InputError for a key that the first one lacked."""
        if self.columns is None:
            file = self.draft.open("w", encoding="utf-8", newline="", errors="backslashreplace")
            self.writer = csv.writer(self.open_files.enter_context(file), lineterminator="\n")
            self.columns = batch.columns
            self.writer.writerow([*self.columns, *further])
        new = set(batch.columns) - set(self.columns)
        if new:
            raise InputError(
                f"{self.path}: a later row has the key {min(new)!r}, which the first ones lack. "
                "Write .jsonl, where rows may differ."
            )
        for row, answer in zip(batch.rows, zip(*further.values(), strict=True), strict=True):
            self.writer.writerow(
                [*(_as_cell(row.get(name)) for name in self.columns), *map(_as_cell, answer)]
            )


class JsonlWriter(RowWriter):
    """Writes one JSON object a line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        file = self.draft.open("w", encoding="utf-8", errors="backslashreplace")
        self.file = self.open_files.enter_context(file)

    def write(self, batch: Batch, further: dict[str, list[Any]]) -> None:
        """Write a batch."""
        for number, row in enumerate(batch.rows):
            whole = row | {name: values[number] for name, values in further.items()}
            self.file.write(json.dumps(whole, ensure_ascii=False, default=str) + "\n")


class ParquetWriter(RowWriter):
    """Writes parquet, with the input's types where that is parquet too."""

    writer: Any = None

    def write(self, batch: Batch, further: dict[str, list[Any]]) -> None:
        """Write a batch; raise InputError for values of other types than in the first one."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"confidence": pa.float64(), "abstain": pa.bool_()}
        try:
            table = pa.table(batch.table or pa.Table.from_pylist(batch.rows))
            for name, values in further.items():
                kind = types.get(name.removeprefix("predicted_"), pa.string())
                table = table.append_column(name, pa.array(values, kind))
            if self.writer is None:
                self.writer = pq.ParquetWriter(self.draft, table.schema)
                self.open_files.callback(self.writer.close)
            self.writer.write_table(table.cast(self.writer.schema))
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
            raise InputError(
                f"{self.path}: rows differ in their keys or types: {str(error).splitlines()[0]}. "
                "Write .jsonl, where they may."
            ) from None


WRITERS: dict[str, type[RowWriter]] = {
    ".csv": CsvWriter,
    ".jsonl": JsonlWriter,
    ".parquet": ParquetWriter,
}


def _as_cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value
