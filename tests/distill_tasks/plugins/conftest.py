import os
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """An environment in which our entry points are found, whether this checkout is installed."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    folder = tmp_path_factory.mktemp("installed")
    about = folder / "potstill-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: potstill\nVersion: 0\n")
    lines = [
        line
        for group, points in declared.items()
        for line in (f"[{group}]", *(f"{name} = {where}" for name, where in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
