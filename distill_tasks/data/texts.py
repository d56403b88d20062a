"""The texts of tables: several tables as one, and several columns joined into one text."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.data.settings import RowFormat, Table, join_fields
from distill_tasks.data.tables import check_column, read_table

if TYPE_CHECKING:
    import pandas as pd


def read_tables(
    tables: Table | tuple[Table, ...], columns: Sequence[str], split: str
) -> pd.DataFrame:
    """Return the rows of one table, or the columns of several, one after the other.

    Raises InputError like `read_table`, for a table without one of the columns, and for a pattern
    that no file matches.
    """
    import pandas as pd

    several = tables if isinstance(tables, tuple) else (tables,)
    found = [one for table in several for one in expand_pattern(table, split)]
    frames = [read_table(table, split) for table in found]
    if len(frames) == 1:
        return frames[0]
    for table, frame in zip(found, frames, strict=True):
        for column in columns:
            check_column(frame, column, f"{split}: {table}", "Every table needs it.")
    return pd.concat([frame[list(columns)] for frame in frames], ignore_index=True)


def expand_pattern(table: Table, split: str) -> list[Table]:
    """Return the paths that a pattern matches, in their order; any other table as it is."""
    if not isinstance(table, str) or Path(table).exists() or not glob.has_magic(table):
        return [table]
    paths = sorted(glob.glob(table, recursive=True))  # noqa: PTH207  # it may be absolute
    if not paths:
        raise InputError(
            f"data.{split}: no file matches {table}. Paths are relative to {Path.cwd()}."
        )
    return [*paths]


def read_texts(frame: pd.DataFrame, config: RowFormat, split: str) -> list[str]:
    """Return the text of each row, joined from several columns where these are configured.

    Raises InputError for a missing column, no rows, or rows without text.
    """
    for column in config.text_columns:
        check_column(frame, column, split)
    if frame.empty:
        raise InputError(f"data.{split} has no rows. Give at least one, or leave the split out.")
    texts = join_columns(frame, config)
    bad = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if bad:
        raise InputError(
            f"data.{split}: {len(bad)} texts are empty or not text (row {shortlist(bad)}, counted "
            f"from 0; first found: {texts[bad[0]]!r}). Remove or fill these rows."
        )
    return texts


def join_columns(frame: pd.DataFrame, config: RowFormat) -> list[Any]:
    """Return the text of each row; a cell that is no text stands for the whole row."""
    if not config.fields:
        return list(frame[config.text_columns[0]])
    columns = [frame[name].where(frame[name].notna(), "") for name in config.fields]
    rows = zip(*columns, strict=True)
    return [_join(dict(zip(config.fields, cells, strict=True)), config.template) for cells in rows]


def _join(cells: dict[str, Any], template: str) -> Any:
    wrong = [cell for cell in cells.values() if not isinstance(cell, str)]
    return wrong[0] if wrong else join_fields(template, cells)
