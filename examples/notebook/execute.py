"""Execute the notebook from an empty folder as Jupyter does, and keep what its cells print."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
NOTEBOOK = HERE / "tickets.ipynb"


def main() -> None:
    """Write what the cells of the notebook answer into the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        executed = execute(NOTEBOOK, Path(folder))
    nbformat.write(executed, NOTEBOOK)
    print(f"{NOTEBOOK.name}: {len(executed.cells)} cells")


def execute(path: Path, folder: Path) -> NotebookNode:
    """Return a notebook executed in a folder beside its modules; log lines are left out."""
    notebook = nbformat.read(path, as_version=4)
    for module in path.parent.glob("*.py"):
        shutil.copy(module, folder)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which differ
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.output_type == "execute_result"]
    return notebook


if __name__ == "__main__":
    main()
