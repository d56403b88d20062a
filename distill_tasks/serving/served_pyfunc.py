"""The served model as MLflow loads it, from the logged code, without this project installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class ServedStudent(PythonModel):
    """Opens the student's folder with the code that was logged beside it."""

    def load_context(self, context: Any) -> None:
        """Open the model with the code of its own version, whatever other versions are loaded."""
        code = _load_code(Path(context.artifacts["code"]))
        self.model = code.open_model(context.artifacts["student"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return label, confidence, class probabilities and abstention for each text.

        The input may be a table or anything pandas can make one of: a list, array or dictionary.
        The parameters are ``text_column``, and ``top_k`` and ``threshold`` of `answer`.
        """
        given = params or {}
        try:
            texts = _take_texts(model_input, given.get("text_column", "text"), self.model.fields)
            answers = self.model.answer(texts, given.get("top_k"), given.get("threshold"))
        except ValueError as error:  # so that a server responds with status 400 and this message
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return pd.DataFrame(
            [vars(answer) for answer in answers],
            columns=["label", "confidence", "probabilities", "abstain"],
        )


def _take_texts(given: Any, column: str, fields: tuple[str, ...] = ()) -> list[Any]:
    """Return rows with the model's fields, or the column of that name, or the only column.

    Raises ValueError if there are several columns, none of that name, or some of the fields alone.
    """
    table = given if isinstance(given, pd.DataFrame) else _make_table(given)
    there = [name for name in fields if name in table]
    if fields and there == list(fields):
        rows: list[Any] = table[there].to_dict("records")
        return rows
    if column in table:
        return list(table[column])
    if there:
        raise ValueError(f"The model reads the fields {list(fields)}; found {there} alone.")
    if len(table.columns) == 1:
        return list(table.iloc[:, 0])
    raise ValueError(
        f"Which column holds the texts? Found {list(table.columns)}, none named {column!r}. Rename "
        "it, name it in the parameter text_column, or give a list of strings."
    )


def _make_table(given: Any) -> pd.DataFrame:
    """Return a table of texts, a text alone, or records, whose cells MLflow's server wraps."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list) and all(isinstance(row, dict) for row in given):
        given = [{name: _unwrap(cell) for name, cell in row.items()} for row in given]
    try:
        return pd.DataFrame(given, dtype=object)
    except ValueError:
        raise ValueError("This is no list or table of texts. Give a list of strings.") from None


def _unwrap(cell: Any) -> Any:
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


def _load_code(path: Path) -> ModuleType:
    name = f"served_model_{abs(hash(str(path)))}"
    beside = [str(path.parent)]  # where it finds served_text
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=beside)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


set_model(ServedStudent())
