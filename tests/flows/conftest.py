"""Tests of the command line run flows."""

import prefect.main  # noqa: F401  # sets logging up on a stream that no test closes
