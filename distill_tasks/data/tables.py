"""Reading the user's rows: csv, parquet, jsonl, a `datasets` folder, or the hub."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_tasks.core.errors import InputError, did_you_mean, say_error, shortlist
from distill_tasks.data.settings import HubTable, Table

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".csv", ".parquet", ".jsonl")
OTHER_SEPARATORS = (";", "\t", "|")
"""Separators other than the comma, which some spreadsheets write into a csv."""


def read_table(table: Table, split: str) -> pd.DataFrame:
    """Return the rows of one split of the configuration.

    Raises InputError for a missing file, an unknown format or an unreadable file.
    """
    if isinstance(table, HubTable):
        return _read_hub(table, split)
    path = Path(table)
    if not _exists(path):
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")])
        raise InputError(
            f"data.{split}: {path} does not exist{near}. Paths are relative to {Path.cwd()}."
        )
    if path.is_dir():
        return _read_folder(path, split)
    if path.suffix not in FORMATS or not path.is_file():  # a pipe would never end
        raise InputError(
            f"data.{split}: {path} is neither a folder nor one of {', '.join(FORMATS)}. "
            "Convert it, or give a `datasets` folder or a hub id."
        )
    return _read_file(path, split)


def _exists(path: Path) -> bool:
    """Return whether a path exists; False also for a path that no file can have."""
    try:
        return path.exists()
    except OSError:
        return False


def check_column(
    frame: pd.DataFrame,
    column: str,
    split: str,
    advice: str = "Set data.text_column and data.label_column.",
) -> None:
    """Raise InputError unless the rows have the column; the message ends with ``advice``."""
    if column not in frame.columns:
        raise InputError(
            f"data.{split} has no column {column!r}{did_you_mean(column, frame.columns)}; it has "
            f"{shortlist(frame.columns)}. {advice}"
        )


def _read_file(path: Path, split: str) -> pd.DataFrame:
    import pandas as pd

    try:
        if path.suffix == ".csv":
            return _read_csv(path, split)
        if path.suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False)
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, UnicodeDecodeError):
            reason = describe_encoding(path)
        raise InputError(
            f"data.{split}: {path} cannot be read as {path.suffix}: {reason}"
        ) from None


def describe_encoding(path: Path) -> str:
    """Return which line is not UTF-8, and how it reads in the encoding that it probably has."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is UTF-16. Save it as UTF-8."
    for number, line in enumerate(content.splitlines(), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            text = line[max(0, error.start - 20) :].decode("cp1252", errors="replace")
            found = f"line {number} is no UTF-8 but perhaps cp1252, as which it reads {text[:60]!r}"
            return f"{found}. Save it as UTF-8."
    return "it is no UTF-8."


def _read_csv(path: Path, split: str) -> pd.DataFrame:
    """Read every cell as text: `NA` stays a word and `01` a label; only empty cells are missing."""
    import pandas as pd

    refuse_other_separator(path)
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except pd.errors.ParserError as error:
        if "EOF inside string" not in str(error):
            raise
        *_, (first, _) = _find_lines(path)
        raise ValueError(f"line {first} opens a quote that is never closed.") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(
            f"data.{split}: the rows of {path} have more cells than its header. "
            "Quote texts that contain a comma."
        )
    _refuse_swallowed_rows(path, frame)
    return frame


def refuse_other_separator(path: Path) -> None:
    """Raise ValueError if a csv's header is parted by something else than commas."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline().strip()
    found = [mark for mark in OTHER_SEPARATORS if mark in header]
    if found and "," not in header:
        raise ValueError(
            f"its first line, {header[:60]!r}, is parted by {found[0]!r}. Save it with commas."
        )


def _refuse_swallowed_rows(path: Path, frame: pd.DataFrame) -> None:
    """Raise ValueError if a stray quote joined many rows into one cell.

    Such a cell ends in the middle, which a quoted cell never does, or all its lines look like rows.
    """
    with path.open("rb") as file:
        if sum(1 for _ in file) == len(frame) + 1:
            return  # the header, and a line for each row
    common: list[set[Any]] = []
    for first, lines in _find_lines(path):
        if len(lines) == 1:
            continue
        if not common:
            counts = [frame[column].value_counts() for column in frame]
            common = [set(values[values > 1].index) for values in counts]
        if _ends_in_the_middle(lines) or all(_looks_like_row(line, common) for line in lines):
            raise ValueError(
                f"line {first} opens a quote that is closed in line {first + len(lines) - 1} only: "
                f"{len(lines)} rows would become one. Remove it, or double it inside a quoted cell."
            )


def _find_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of each row of a csv (one or more), and the number of the first line."""
    lines: list[str] = []

    def copy_lines(file: Iterable[str]) -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    before = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(copy_lines(file))
            for _ in reader:
                yield reader.line_num - len(lines) + 1, lines
                lines.clear()
    finally:
        csv.field_size_limit(before)


def _ends_in_the_middle(lines: Sequence[str]) -> bool:
    try:
        return not list(csv.reader(lines, strict=True))
    except csv.Error:
        return True


def _looks_like_row(line: str, common: Sequence[set[Any]]) -> bool:
    """Return whether a line has enough cells, one of them a common value of its column.

    In prose a space follows the comma, so that a class named in prose is no such cell.
    """
    cells = [cell.strip('"\r\n') for cell in line.split(",")]
    if len(cells) < len(common):
        return False
    from_the_end = cells[-len(common) :]
    return any(
        cell in values or last in values
        for cell, last, values in zip(cells, from_the_end, common, strict=False)
    )


def _read_folder(path: Path, split: str) -> pd.DataFrame:
    from datasets import Dataset, load_from_disk

    try:
        dataset = load_from_disk(str(path))
    except FileNotFoundError:
        raise InputError(
            f"data.{split}: {path} is a folder but not one written by datasets.save_to_disk."
        ) from None
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"data.{split}: {path} holds several splits ({shortlist(dataset)}). "
            f"Name one, as {path / next(iter(dataset))}."
        )
    return _with_class_names(dataset)


def _read_hub(table: HubTable, split: str) -> pd.DataFrame:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        dataset = load_dataset(
            table.hub,
            table.subset,
            split=table.split,
            revision=table.revision,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise InputError(
            f"data.{split}: {table.hub} cannot be read from the hub: {say_error(error)}. Correct "
            "it, or download it where there is a network and give its folder."
        ) from None
    return _with_class_names(dataset)


def _with_class_names(dataset: object) -> pd.DataFrame:
    """Return the rows with class numbers replaced by the class names of the data set."""
    from datasets import ClassLabel, Dataset

    assert isinstance(dataset, Dataset)
    frame: pd.DataFrame = dataset.to_pandas()
    for column, feature in dataset.features.items():
        item = getattr(feature, "feature", None)
        if isinstance(feature, ClassLabel):
            known = dict(enumerate(feature.names))  # -1 and None stand for no label
            frame[column] = frame[column].map(known)
        elif isinstance(item, ClassLabel):
            names = dict(enumerate(item.names))
            lists = frame[column].dropna()
            frame[column] = lists.map(lambda row, names=names: [names.get(one) for one in row])
    return frame
