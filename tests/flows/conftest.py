"""Configurations whose flows run in no time."""

from __future__ import annotations

import prefect.main  # noqa: F401  # sets logging up on a stream that no test closes
import pytest
from samples import make_quick


@pytest.fixture
def quick(written, tmp_path):
    """The small configuration with saved answers and students that train in no time."""
    return make_quick(written, tmp_path)


@pytest.fixture
def ready_teacher(tiny_base):
    """The settings of a teacher that has weights here, which takes torch to measure."""
    return {"kind": "transformers", "model": str(tiny_base), "max_length": 16}
