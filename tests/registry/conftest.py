"""Names that the tests of the registry share."""

from __future__ import annotations

import pytest


@pytest.fixture
def model(request) -> str:
    """A registered model's name, its own for each test."""
    return request.node.originalname.removeprefix("test_")[:60]
